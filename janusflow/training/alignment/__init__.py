"""Representation alignment: losses, teachers, similarity."""
