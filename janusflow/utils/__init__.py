"""Helpers for files, limits and devices.

Every other room may import them; they import none of ours.
"""
