"""Images with a mask file each: class maps."""
