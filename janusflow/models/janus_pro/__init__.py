"""Janus-Pro and Janus: images as tokens of a codebook, behind JanusFlow's calls."""
