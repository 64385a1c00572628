"""File formats of medical images: read, checked, written."""
