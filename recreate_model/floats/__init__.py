"""Float weights, whatever form they come in."""
