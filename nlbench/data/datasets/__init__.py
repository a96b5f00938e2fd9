"""The datasets, one file for each. The folder is the registry."""
