"""Janus-Pro and Janus: images as tokens of a codebook, with JanusFlow's interface."""
