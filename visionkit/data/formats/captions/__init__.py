"""Captions: json files, text files, and folders of images with a sentence each."""
