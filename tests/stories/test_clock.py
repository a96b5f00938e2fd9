"""The time of day jumps in the middle of a sweep: no limit is reached, and no number differs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trial import NLBENCH

pytestmark = [
    pytest.mark.story,
    pytest.mark.skipif(
        not (shutil.which("cc") and sys.platform == "linux"), reason="no C compiler, or not Linux"
    ),
]

SOURCE = Path(__file__).parents[1] / "support" / "clock_jump.c"
DAY = 86_400


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Compile the clock, and return the library."""
    made = tmp_path_factory.mktemp("clock") / "clock_jump.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, SOURCE, "-ldl"], check=True)
    return made


def train(out, **environment):
    """Train a row of the quick suite, and return what the command has printed."""
    command = [NLBENCH, "run", "quick", "--only", "ce,elr", "--seeds", "0", "--jobs", "2"]
    command += ["--set", "epochs=25", "--checkpoint-seconds", "0", "--timeout", "2", "--out", out]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole") / "out")


def test_the_clock_jumps(library):
    code = """if 1:
        import time
        began, before = time.monotonic(), time.time()
        while abs(time.time() - before) < 1000 and time.monotonic() < began + 30:
            time.sleep(0.05)
        print(round(time.time() - before - 3600 - time.monotonic() + began))
    """
    jumping = {"LD_PRELOAD": str(library), "CLOCK_JUMP": "3600", "CLOCK_AFTER": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **jumping}
    )
    assert done.stdout == "0\n", done.stderr


@pytest.mark.parametrize("seconds", [-400 * DAY, -120, 120, 400 * DAY])
def test_a_sweep_goes_on_when_the_clock_jumps(tmp_path, library, undisturbed, seconds):
    with open("/proc/uptime") as file:
        up = float(file.read().split()[0])
    jumping = {
        "LD_PRELOAD": str(library),
        "CLOCK_JUMP": str(seconds),
        # In the middle of the training, in every process at the same time.
        "CLOCK_UP": str(up + 8),
    }
    assert train(tmp_path / "out", **jumping) == undisturbed
