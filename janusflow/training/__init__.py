"""Training: stages as data, a trainer on accelerate, and bitwise-exact resuming."""
