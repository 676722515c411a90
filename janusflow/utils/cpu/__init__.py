"""Optimisations for CPUs. Each can be switched off."""
