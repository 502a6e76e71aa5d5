"""Checks whether a published INT8 file derives from a float checkpoint."""
