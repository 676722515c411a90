"""Malformed files and texts, by the million."""
