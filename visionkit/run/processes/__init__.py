"""The processes of a run: how they start, stop, and end together."""
