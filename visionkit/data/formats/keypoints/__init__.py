"""Keypoints: COCO files, tables of points, and one object a sample of either."""
