"""After kill -9 in the middle of a run, the same command goes on and prints the same table."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.story

NLBENCH = Path(sys.executable).with_name("nlbench")
ARGS = ["--only", "elr", "--seeds", "0", "--set", "epochs=60", "--checkpoint-seconds", "0"]


def train(out):
    """Run the command to its end, and return its finished process."""
    return subprocess.run(command(out), capture_output=True, text=True, check=True)


def command(out):
    return [NLBENCH, "run", "quick", "--out", out, *ARGS]


def test_kill_and_resume(tmp_path):
    whole = train(tmp_path / "whole")
    cut = tmp_path / "cut"

    # Kill it as soon as there is a checkpoint to go on from.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen(command(cut), **quiet)
    deadline = time.monotonic() + 60
    while not list(cut.glob("runs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)

    assert killed.wait() == -signal.SIGKILL
    assert not list(cut.glob("runs/*/record.json"))
    assert list(cut.glob("runs/*/checkpoint.pt"))

    again = train(cut)
    assert again.stdout == whole.stdout
    assert "continues at epoch" in again.stderr

    # Nothing is left to train, so there is no progress to report.
    last = train(cut)
    assert (last.stdout, last.stderr) == (whole.stdout, "")
