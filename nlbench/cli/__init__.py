"""The command line, `nlbench`."""

from nlbench.cli.app import main

__all__ = ["main"]
