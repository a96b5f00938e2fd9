"""Readers of file formats that datasets share."""
