"""Pascal VOC: boxes in XML files, and segmentation masks."""
