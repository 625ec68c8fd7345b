"""Resampling the images that runs were scored on: files of rows, weighted scores, bootstrap draws."""
