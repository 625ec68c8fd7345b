"""Tables of image paths and targets: CSV, TSV and their like."""
