"""Nodes without network: after `--prepare` nothing connects, and a cold cache is filled once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from layouts import Clothing1M
from trial import NLBENCH

from nlbench import models

pytestmark = pytest.mark.story

SUITE = """\
name: mine
protocol: clothing1m
datasets: [{name: clothing1m}]
methods: {ce: {}}
seeds: [0]
overrides: {resize: 36, crop: 32, batches_per_epoch: 2, batch_size: 8, epochs: 1, threads: 1,
  precision: float32, weights: imagenet}
"""
# Every process of Python imports this module when it starts.
GUARD = """\
import os
import socket

connect = socket.socket.connect

def refuse(*args):
    with open(os.environ["NLBENCH_TEST_CONNECTIONS"], "a") as file:
        file.write(f"{args[-1]}\\n")
    raise OSError("no network in a test")

def guarded(self, address):
    return connect(self, address) if self.family == socket.AF_UNIX else refuse(address)

socket.socket.connect = guarded
socket.socket.connect_ex = guarded
socket.getaddrinfo = refuse
"""
REVISION = "0" * 40


@pytest.fixture
def node(tmp_path):
    """Return node(*arguments), which runs a command that cannot connect to anything."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    (tmp_path / "mine.yaml").write_text(SUITE)
    Clothing1M().write(tmp_path / "data")
    paths = [str(tmp_path / "guard"), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "PYTHONPATH": os.pathsep.join(paths),
        "NLBENCH_TEST_CONNECTIONS": str(tmp_path / "connections"),
        "NLBENCH_DATA": str(tmp_path / "data"),
        "NLBENCH_CACHE": str(tmp_path / "cache"),
        "NLBENCH_WORKERS": "0",
        "TORCH_HOME": str(tmp_path / "torch"),
        "HF_HOME": str(tmp_path / "hf"),
    }

    def call(*arguments):
        command = [NLBENCH, "run", "mine.yaml", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=300
        )

    return call


def published(name, tmp_path):
    """Put made-up weights where the package of a model keeps the published ones."""
    state = models.build(name, 1000, (3, 32, 32)).state_dict()
    if name.startswith("torchvision/"):
        path = tmp_path / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path)
        return

    safetensors = pytest.importorskip("safetensors.torch")
    repository = tmp_path / "hf" / "hub" / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(REVISION)
    safetensors.save_file(state, snapshot / "model.safetensors")


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ("torchvision/squeezenet1_1", "imagenet"),
        ("timm/test_resnet", "imagenet"),
        ("timm/test_resnet.r160_in1k", "pretrained"),
    ],
)
def test_after_preparing_nothing_connects(node, tmp_path, model, weights):
    pytest.importorskip(model.partition("/")[0])
    options = ("--set", f"model={model}", "--set", f"weights={weights}", "--out", "store")
    # Without weights it does, and the guard notices.
    missing = node(*options)
    assert missing.returncode == 2, missing.stderr
    assert "`nlbench run SUITE --prepare` gets them" in missing.stderr
    assert (tmp_path / "connections").read_text()
    (tmp_path / "connections").unlink()

    published(model, tmp_path)
    prepared = node(*options, "--prepare")
    assert prepared.returncode == 0, prepared.stderr
    assert f"weights: {model}: {tmp_path}" in prepared.stdout
    done = node(*options)
    assert done.returncode == 0, done.stderr

    assert not (tmp_path / "connections").exists()
    (record,) = tmp_path.glob("store/runs/*/record.json")
    assert json.loads(record.read_text())["status"] == "done"


# ---- A cold cache --------------------------------------------------------------------------------

# Decodes for a while, and says so in a file.
DECODE = """\
import sys, time
from pathlib import Path
import numpy as np
from nlbench.data import cache

place = Path(sys.argv[1])

def decode():
    with open(place / "decoded", "a") as file:
        file.write("once\\n")
    time.sleep(float(sys.argv[2]))
    return {"images": np.ones(1 << 20, np.uint8)}, {}

if len(sys.argv) > 3:
    # To be killed in the middle of writing.
    save = np.save
    np.save = lambda *args: (save(*args), print("writing", flush=True), time.sleep(60))
arrays, _ = cache.cached(place / "cache", "x", [place / "source"], decode)
print(int(arrays["images"].sum()))
"""


def start(place, seconds, *more):
    return subprocess.Popen(
        [sys.executable, "-c", DECODE, place, str(seconds), *more],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_eight_processes_decode_once(tmp_path):
    (tmp_path / "source").write_text("x")
    processes = [start(tmp_path, 1) for _ in range(8)]
    results = [process.communicate(timeout=120)[0] for process in processes]

    assert results == [f"{1 << 20}\n"] * 8
    assert (tmp_path / "decoded").read_text() == "once\n"
    assert not list((tmp_path / "cache").glob(".*"))


def test_a_kill_while_an_entry_is_written_leaves_nothing_for_good(tmp_path):
    (tmp_path / "source").write_text("x")
    killed = start(tmp_path, 0, "slow")
    assert killed.stdout.readline() == "writing\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(list((tmp_path / "cache").glob(".*"))) == 1

    began = time.monotonic()
    assert start(tmp_path, 0).communicate(timeout=60)[0] == f"{1 << 20}\n"
    # The lock of a process that is gone is not waited for.
    assert time.monotonic() - began < 30
    assert not list((tmp_path / "cache").glob(".*"))
