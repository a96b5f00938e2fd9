"""Loggers: one file for each. A new file NAME.py is the logger NAME.

It has PACKAGE, the package that it needs, and `open_logger(value, out)`, which returns an object
with the methods of `nlbench.watching.Logger`. The package is imported inside that function.
"""
