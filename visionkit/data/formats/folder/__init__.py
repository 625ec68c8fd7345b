"""Image folders: one sub-folder for each class."""
