"""All runs of a recipe: every init, seed, fraction and schedule, one after another or at once."""
