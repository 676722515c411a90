"""Training data: samples, the sources they come from, and mixtures of sources."""
