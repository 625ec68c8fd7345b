"""Hugging Face image folders: `metadata.jsonl` or `metadata.csv` beside the images."""
