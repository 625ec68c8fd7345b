"""Classification and regression: images to classes, labels or numbers."""
