"""The version of this release, which every written file records."""

VERSION = "0.1.0"
