"""visionkit: does pretrained init beat from-scratch here, by how much, for how long, with how little data?

One registry of pretrained backbones (`visionkit.backbones`) under four Lightning tasks (`visionkit.tasks`),
recipes that train both arms under the same conditions, and a comparison that refuses unlike runs.
Importing this package imports nothing else: no torch, no Lightning.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
