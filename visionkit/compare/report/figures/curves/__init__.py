"""Figures whose axis is images seen, a schedule, a rate or a share of the data."""
