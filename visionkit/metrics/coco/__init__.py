"""Objects of images for COCO's scores: their rows in one order, and their masks as run lengths."""
