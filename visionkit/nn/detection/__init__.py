"""Faster R-CNN and Mask R-CNN: anchors, region proposals, RoIAlign, heads."""
