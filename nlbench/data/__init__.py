"""Datasets, label noise, and the files they come from. `catalogue` leads from names to datasets."""
