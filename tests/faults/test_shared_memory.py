"""Nothing stays in shared memory of a run that was killed while it decoded images."""

import re
import textwrap
import time
from pathlib import Path

import many_processes
import pytest

from nlbench import api

pytestmark = pytest.mark.story

# The pool's semaphores are files in shared memory, which its process has mapped.
METHOD = '''
"""Notes its semaphores, and is killed."""
import os, pathlib, re, signal
from torch.nn import functional as F
from nlbench.method import Method


class Dies(Method):
    def loss(self, logits, batch):
        return F.cross_entropy(logits, batch.labels)

    def on_epoch_end(self, run, epoch):
        maps = pathlib.Path("/proc/self/maps").read_text()
        names = re.findall("/dev/shm/sem\\\\S+", maps)
        pathlib.Path(os.environ["NLBENCH_TEST_NOTES"]).write_text("\\\\n".join(names))
        os.kill(os.getpid(), signal.SIGKILL)
'''


def test_semaphores_of_a_killed_run_are_removed(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "1")
    monkeypatch.setenv("NLBENCH_EXECUTOR", "workers")
    monkeypatch.setenv("NLBENCH_TEST_NOTES", str(tmp_path / "notes"))
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "dies.py").write_text(textwrap.dedent(METHOD).lstrip())
    pictures = many_processes.write_pictures(tmp_path / "pictures", train=60, test=12)
    text = many_processes.SUITE.replace("PICTURES", str(pictures))
    text = re.sub(r"(?s)methods:.*overrides", "methods: {dies: {}}\nseeds: [0]\noverrides", text)
    (tmp_path / "suite.yaml").write_text(text)

    made = api.prepare(
        tmp_path / "suite.yaml",
        out=tmp_path / "out",
        device="cpu",
        methods_dir=tmp_path / "methods",
    )
    made.run()

    names = (tmp_path / "notes").read_text().splitlines()
    assert names
    # They go when the last process of the sweep has ended.
    deadline = time.monotonic() + 10
    while any(Path(name).exists() for name in names) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [name for name in names if Path(name).exists()] == []
    assert "leaked" not in capfd.readouterr().err
