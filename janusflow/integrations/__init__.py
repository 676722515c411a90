"""Adapters to other toolkits: their evaluations, backbones and caches with JanusFlow and
Janus-Pro.
"""
