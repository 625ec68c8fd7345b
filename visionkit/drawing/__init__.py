"""Text, boxes, class maps and grids drawn on images: for previews, predictions and reports."""
