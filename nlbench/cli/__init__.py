"""The command line. Every module here adds its commands to the application in `app`."""

from nlbench.cli import interrupt

# Before the imports below, which take most of the time until a command begins.
interrupt.take_over()

from nlbench.cli.app import app, main  # isort: skip

# The order of these imports is the order of the commands in `nlbench --help`.
from nlbench.cli import run, results, compare, figures, report, suspects, store, reproduce  # isort: skip
from nlbench.cli import catalogue, embed, methods, doctor, bench  # isort: skip

__all__ = [
    "app",
    "bench",
    "catalogue",
    "compare",
    "doctor",
    "embed",
    "figures",
    "main",
    "methods",
    "report",
    "reproduce",
    "results",
    "run",
    "store",
    "suspects",
]
