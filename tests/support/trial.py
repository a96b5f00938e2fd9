"""A suite of two short runs, and the command as it is installed."""

import sys
from pathlib import Path

NLBENCH = Path(sys.executable).parent / "nlbench"

SUITE = """\
name: trial
protocol: digits
datasets:
  - {name: digits, noise: {kind: symmetric, rate: 0.4}}
methods:
  ce: {}
  gce: {}
seeds: [0]
overrides: {epochs: 1}
"""

# The text of a method file.
FAILING = '''"""Fails in its first epoch."""
from nlbench.method import Method


class Failing(Method):
    def loss(self, logits, batch):
        raise KeyError("nothing under this key")
'''

# Long enough that a test can interrupt it.
ENDLESS = SUITE.replace("epochs: 1", "epochs: 100000")
