"""The report of a comparison: one HTML file with its figures."""
