"""From float to INT8: the converter, and the arithmetic of its quantizer."""
