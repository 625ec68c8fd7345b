"""Preview images of a run: a training batch as the model receives it, and validation predictions."""
