"""From what the user typed to a recipe."""
