"""Compares two models: how far they agree, and where they differ."""
