"""Kinds of label noise, and files of labels and matrices."""
