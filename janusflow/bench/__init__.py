"""Measured speed: pipelines, solvers, training."""
