"""Tricks for CPUs; each can be switched off."""
