"""Configurations, one a file: ``get_config(method)``."""
