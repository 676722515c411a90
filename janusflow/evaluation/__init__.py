"""Evaluation: tasks, reports with their protocol, and comparisons. See docs/evaluation.md."""
