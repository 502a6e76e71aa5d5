"""Measures the range of every activation on calibration pictures."""
