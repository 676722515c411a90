"""Fits a grid or a whole solver to a field."""
