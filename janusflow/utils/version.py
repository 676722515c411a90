"""The release, which every written file names."""

VERSION = "0.1.0"
