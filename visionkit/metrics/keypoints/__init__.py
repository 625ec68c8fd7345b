"""Scores of keypoints: object keypoint similarity, and distances as fractions of an object's size."""
