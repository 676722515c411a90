"""Fitting a grid or a whole rule to a field."""
