"""Datasets: a file each, which is the registry."""
