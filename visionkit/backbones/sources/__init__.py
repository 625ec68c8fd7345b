"""Sources of architectures and pretrained weights: timm, torchvision, packages and user code."""
