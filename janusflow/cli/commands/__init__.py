"""One file a command, an object of its options, and what it does with them."""
