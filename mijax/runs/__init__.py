"""Runs on disk: their folders, what is in them, and their checkpoints."""
