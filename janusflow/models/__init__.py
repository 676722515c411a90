"""Networks and their checkpoints. Nothing here knows a solver, a data set or a trainer."""
