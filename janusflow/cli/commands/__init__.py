"""The commands, one file each: an options object and a function."""
