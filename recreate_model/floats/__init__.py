"""Readers of float weights in every supported format."""
