"""Heads that find the points of one object in an image: by regression in stages, and by heat maps."""
