"""Transforms of samples (in the data workers) and of batches (on the device)."""
