"""One file a family of solvers; importing it registers them."""
