"""Embedding: images to vectors that lie near each other where the class is the same."""
