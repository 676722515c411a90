"""The command line: main.py mounts one file a command."""
