"""Semantic segmentation: images to class maps."""
