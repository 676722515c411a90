"""Training: stages as data, a trainer on accelerate, exact resume."""
