"""All runs of a recipe: every init, seed and fraction, one after another or at once."""
