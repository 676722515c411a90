"""Experiments that produced a page or a notebook; not installed."""
