"""Readers of the file formats that datasets share."""
