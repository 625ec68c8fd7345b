"""Detection: images to boxes, and to masks with a mask head."""
