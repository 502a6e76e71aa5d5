"""Stages, keys, and the folder of a build."""
