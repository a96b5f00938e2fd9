"""Tasks of a job array on one store: each run is trained once, and a dead task loses nothing."""

import os
import signal
import subprocess
import time

import pytest
from sweeps import method_file
from trial import NLBENCH, SUITE

pytestmark = pytest.mark.story

# Writes a line when a run begins its training.
COUNTED = """
    class Counted(Method):
        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)

        def on_epoch_end(self, run, epoch):
            if epoch == 0:
                with open(os.environ["NLBENCH_TEST_LINES"], "a") as file:
                    file.write("trained\\n")
"""
SIX = (
    SUITE.replace("  ce: {}", "  counted: {}")
    .replace("  gce: {}", "  ce: {}")
    .replace("seeds: [0]", "seeds: [0, 1, 2]")
)


def start(place, *options, **environment):
    """Start a command in `place`, and return its process."""
    own = {
        "NLBENCH_CACHE": str(place / "cache"),
        "NLBENCH_DATA": str(place / "no-data"),
        "NLBENCH_TEST_LINES": str(place / "lines"),
        "NLBENCH_METHODS": "",
        **environment,
    }
    return subprocess.Popen(
        [NLBENCH, "run", "six.yaml", "--methods-dir", "own", *map(str, options)],
        cwd=place,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def place(tmp_path):
    """Return a folder with a suite of six runs."""
    method_file(tmp_path / "own", "counted", COUNTED)
    (tmp_path / "six.yaml").write_text(SIX)
    return tmp_path


def ended(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def test_three_tasks_at_once_train_each_run_once(place):
    tasks = [start(place, "--out", "store", "--shard", f"{i}/3") for i in (1, 2, 3)]
    printed = [ended(task) for task in tasks]

    assert (place / "lines").read_text().count("\n") == 3
    assert len(list(place.glob("store/runs/*/record.json"))) == 6
    whole = ended(start(place, "--out", "alone"))
    # The last task to end prints the table, and others may have seen the end, too.
    assert whole in printed
    assert set(printed) <= {"", whole}


def test_what_a_killed_task_leaves_is_trained_by_the_next_call(place):
    options = ("--out", "store", "--set", "epochs=3", "--checkpoint-seconds", "0")
    task = start(place, *options, "--shard", "1/2")
    deadline = time.monotonic() + 120
    while not list(place.glob("store/runs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    task.send_signal(signal.SIGKILL)
    task.communicate()
    done = len(list(place.glob("store/runs/*/record.json")))
    assert done < 6

    printed = ended(start(place, *options, "--shard", "2/2"))

    assert len(list(place.glob("store/runs/*/record.json"))) == 6
    assert not list(place.glob("store/runs/*/checkpoint.pt"))
    assert printed == ended(start(place, "--out", "alone", *options[2:]))
