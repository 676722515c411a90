"""What training reads: samples, the sources they come from, mixtures of them, and packs."""
