"""Training: stages as data, an engine on accelerate, exact resume."""
