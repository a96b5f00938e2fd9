"""kill -9 in the middle of a run, through the command line: the same command goes on, and the table is the same."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.story

NLBENCH = Path(sys.executable).with_name("nlbench")
ARGS = ["--only", "elr", "--seeds", "0", "--set", "epochs=60", "--checkpoint-seconds", "0"]


def command(out):
    return [NLBENCH, "run", "quick", "--out", out, *ARGS]


def test_kill_and_resume(tmp_path):
    whole = subprocess.run(command(tmp_path / "whole"), capture_output=True, text=True, check=True)

    killed = subprocess.Popen(command(tmp_path / "cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cut").glob("runs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not list((tmp_path / "cut").glob("runs/*/record.json"))
    assert list((tmp_path / "cut").glob("runs/*/checkpoint.pt"))

    again = subprocess.run(command(tmp_path / "cut"), capture_output=True, text=True, check=True)
    assert again.stdout == whole.stdout
    assert "continues at epoch" in again.stderr
    last = subprocess.run(command(tmp_path / "cut"), capture_output=True, text=True, check=True)
    assert (last.stdout, last.stderr) == (whole.stdout, "")  # nothing was left to train
