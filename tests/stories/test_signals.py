"""Signals end the command with one line and the right status, whenever they come."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from sweeps import method_file
from trial import ENDLESS, NLBENCH

pytestmark = pytest.mark.story

KEPT = "everything finished is kept, and the same command continues from here\n"
STOPPING = "stopping; finished runs are kept."
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGHUP: 129}

# Says when its training has got somewhere.
TRAINS = """
    class Trains(Method):
        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)

        def training_step(self, run, batch):
            if run.step == 20:
                (Path(__file__).parent / "has-trained").touch()
            return super().training_step(run, batch)
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts an endless sweep, and kill what it has started at the end."""
    (tmp_path / "trial.yaml").write_text(ENDLESS.replace("ce: {}\n  gce: {}", "trains: {}"))
    method_file(tmp_path / "own", "trains", TRAINS)
    started = []

    def begin(*options):
        command = [NLBENCH, "run", "trial.yaml", "--out", "store", "--methods-dir", "own", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # The system suspends no group that nobody of its session could continue. In a group of its
        # own the command has such a parent, also where the tests themselves run in the background.
        process = subprocess.Popen(command, cwd=tmp_path, process_group=0, **pipes)
        started.append(process)
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def wait_for(seen, seconds=120):
    deadline = time.monotonic() + seconds
    while not seen() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert seen()


def handles(process, number):
    """Return whether a process has a handler for a signal, see the page proc(5) of Linux."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("number", list(STATUS))
def test_a_signal_during_the_start_ends_it_at_once(start, seconds, number):
    process = start()
    # Before, the start belongs to Python itself: a tenth of a second, on a busy machine several.
    wait_for(lambda: handles(process, signal.SIGHUP))
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == STATUS[number]
    assert out == ""
    assert err.endswith(KEPT)
    assert "Traceback" not in err


@pytest.mark.parametrize("number", list(STATUS))
def test_a_signal_in_training_leaves_a_checkpoint_of_the_last_step(start, tmp_path, number):
    # Without the signal there would be no checkpoint for an hour.
    process = start("--checkpoint-seconds", "3600")
    wait_for((tmp_path / "own" / "has-trained").exists)
    process.send_signal(number)
    began = time.monotonic()
    err = process.communicate(timeout=60)[1]

    assert process.returncode == STATUS[number]
    assert time.monotonic() - began < 10
    assert STOPPING in err
    assert "continues in epoch" in err
    assert err.endswith(KEPT)
    assert list(tmp_path.glob("store/runs/*/checkpoint.pt"))
    assert not list(tmp_path.glob("store/runs/*/record.json"))


def test_a_second_ctrl_c_does_not_wait(start, tmp_path):
    process = start()
    wait_for(lambda: list(tmp_path.glob("store/runs/*/lock")))
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    err = process.communicate(timeout=60)[1]

    assert process.returncode == 130
    assert time.monotonic() - began < 3
    assert "Traceback" not in err


def test_suspending_the_command_suspends_its_runs(start, tmp_path):
    process = start("--checkpoint-seconds", "0")
    wait_for(lambda: list(tmp_path.glob("store/runs/*/checkpoint.pt")))
    process.send_signal(signal.SIGTSTP)
    time.sleep(1)
    (checkpoint,) = tmp_path.glob("store/runs/*/checkpoint.pt")
    before = checkpoint.stat().st_mtime_ns
    time.sleep(2)
    assert checkpoint.stat().st_mtime_ns == before

    process.send_signal(signal.SIGCONT)
    wait_for(lambda: checkpoint.stat().st_mtime_ns != before)
