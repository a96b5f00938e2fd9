"""The command line. Every module here adds its commands to the application in `app`."""

from nlbench.cli.app import app, main

# The order of these imports is the order of the commands in `nlbench --help`.
from nlbench.cli import run, results, catalogue, methods, doctor, bench  # isort: skip

__all__ = ["app", "bench", "catalogue", "doctor", "main", "methods", "results", "run"]
