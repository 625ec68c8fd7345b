"""What segmentation models are made of: decoders, losses, and windows over large images."""
