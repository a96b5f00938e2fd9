"""Datasets, noise, and where the files come from. A file here is a dataset when it defines `load`."""
