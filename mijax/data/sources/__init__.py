"""Data sets by name: which files are which case."""
