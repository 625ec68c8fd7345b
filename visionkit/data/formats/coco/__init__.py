"""COCO: detections, class maps and panoptic annotations."""
