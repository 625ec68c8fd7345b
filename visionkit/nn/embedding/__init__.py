"""Metric learning: losses over unit vectors and their classes."""
