"""What is claimed of a model, and whether it holds."""
