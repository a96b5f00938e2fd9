"""Folders that tests read."""

import os
from pathlib import Path

# Real images and the official vectors are too large for the repository, or not ours to give away.
# They lie beside the checkout, or where the variable says. Without them their tests are skipped.
BESIDE = Path(__file__).resolve().parents[3] / "shared"
TEST_DATA = Path(os.environ.get("NLBENCH_TEST_DATA") or BESIDE).resolve()
