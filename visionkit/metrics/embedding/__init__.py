"""Scores of unit vectors: retrieval by nearest neighbours, and verification of pairs."""
