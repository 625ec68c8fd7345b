"""Packs: a data set read and resized once, in a few files that are mapped into memory."""
