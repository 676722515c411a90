"""Timings, outside of the tests."""
