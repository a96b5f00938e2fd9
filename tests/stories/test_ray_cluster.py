"""A suite on a real Ray cluster of three nodes, of which one dies, and then the driver.

The table is that of the local executor, byte for byte, and each cell is trained to its end once.
"""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray_cluster

# Not imported here: it reads the environment that `ray_cluster` sets.
missing = importlib.util.find_spec("ray") is None
pytestmark = [
    pytest.mark.skipif(missing, reason="needs ray: pip install 'nlbench[ray]'"),
    pytest.mark.story,
    pytest.mark.timeout(900),
]

NLBENCH = Path(sys.executable).with_name("nlbench")
SUITE = """
name: many
protocol: digits
overrides: {epochs: 25}
datasets:
  - {name: digits, noise: {kind: symmetric, rate: 0.4}}
methods: {ce: {}, forward: {}, co-teaching: {}, own: {}}
seeds: [0, 1]
"""
# A method of the user's own, with a helper beside it: both have to reach the nodes.
OWN = """
from nlbench.method import Method

from ._weight import weight


class Own(Method):
    def loss(self, logits, batch):
        return weight() * logits.logsumexp(1).sub(logits.gather(1, batch.labels[:, None])[:, 0])
"""


def command(folder, out, *options):
    """Return the command that trains the suite into folder/out."""
    suite, methods = folder / "many.yaml", folder / "methods"
    if not suite.exists():
        suite.write_text(SUITE)
        methods.mkdir()
        (methods / "own.py").write_text(OWN)
        (methods / "_weight.py").write_text("def weight():\n    return 0.5\n")
    fixed = ["--device", "cpu", "--methods-dir", methods, "--checkpoint-seconds", "0"]
    return [NLBENCH, "run", suite, "--out", folder / out, *fixed, *options]


def records(out):
    """Return when each record of a store was written, by path."""
    return {path: path.stat().st_mtime_ns for path in out.glob("runs/*/record.json")}


def begun(out):
    """Return the folders of the runs of a store that have a checkpoint and no record."""
    folders = [path.parent for path in out.glob("runs/*/checkpoint.pt")]
    return [folder for folder in folders if not (folder / "record.json").exists()]


def wait_for(condition, process, seconds=300):
    """Wait until a condition holds. Fails if the process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the sweep has ended before"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finished(text):
    """Return the runs that a command reports as finished."""
    return re.findall(r"^\[\d+/\d+\] (.+?): \d+\.\d\d%", text, flags=re.MULTILINE)


def test_a_node_dies_and_then_the_driver(tmp_path):
    whole = subprocess.run(
        command(tmp_path, "whole", "--jobs", "2"), capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr
    out, log = tmp_path / "cut", tmp_path / "first.txt"
    # The command is called beside other sources of nlbench, which nobody may import.
    sources = tmp_path / "checkout" / "nlbench"
    sources.mkdir(parents=True)
    (sources / "__init__.py").write_text("raise ImportError('these are not installed')")
    beside = {"cwd": sources.parent, "text": True}

    with ray_cluster.cluster(3) as cluster:
        on_ray = command(tmp_path, "cut", "--executor", "ray", "--address", cluster.address)
        with log.open("w") as stderr:
            first = subprocess.Popen(on_ray, stdout=subprocess.DEVNULL, stderr=stderr, **beside)
        try:
            # All three nodes train.
            wait_for(lambda: len(list(out.glob("runs/*/checkpoint.pt"))) >= 3, first)
            cluster.remove_node(min(cluster.worker_nodes, key=id), allow_graceful=False)
            wait_for(lambda: "is gone; it begins again" in log.read_text(), first)
            # The driver is killed while others train.
            done = len(records(out))
            wait_for(lambda: len(records(out)) >= done + 2, first)
            wait_for(lambda: begun(out), first)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        kept = records(out)
        assert 2 <= len(kept) < 8

        second = subprocess.run(on_ray, capture_output=True, timeout=600, **beside)

    print(log.read_text(), second.stderr, sep="\n--- again\n")
    assert second.returncode == 0, second.stderr
    assert second.stdout == whole.stdout
    # No finished run was trained again. The second call trained what the first one had not, and the
    # first may have been killed between the record of a run and its line.
    assert {path: records(out)[path] for path in kept} == kept
    cells, before, after = map(finished, (whole.stderr, log.read_text(), second.stderr))
    assert len(after) == len(cells) - len(kept)
    assert len(kept) - 1 <= len(before) <= len(kept)
    assert len({*before, *after}) == len(before) + len(after)
    assert {*before, *after} <= set(cells)
    # What the nodes did not finish went on from a checkpoint, and nothing is left of it.
    assert "continues at epoch" in second.stderr
    assert not list(out.glob("runs/*/checkpoint.pt"))
    left = [path.name for path in out.rglob("*") if path.name.endswith(".tmp")]
    assert left == []
    verified = subprocess.run([NLBENCH, "verify", out], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_nothing_of_the_cluster_is_left():
    """The fixture ends what it starts, so that no later test meets it."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "raylet/raylet" not in listed or os.environ.get("RAY_ADDRESS")
