"""Networks and their checkpoints; nothing here knows a solver, a data set or a trainer."""
