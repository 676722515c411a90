"""The small Janus-Pro and its comparison with the flow model (notebook 7)."""
