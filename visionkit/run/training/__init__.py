"""Training one run: the Trainer, its length, precision and device."""
