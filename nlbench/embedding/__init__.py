"""Frozen features of images, and the file that they are written to: `nlbench embed`."""
