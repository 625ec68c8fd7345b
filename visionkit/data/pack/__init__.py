"""Packs: a data set read and resized once, in files that are mapped into memory."""
