"""What methods keep of each example and class: how much that is, and in which dtype."""

import dataclasses
import re
import textwrap
from pathlib import Path

import pytest

from nlbench import api, hardware, registry
from nlbench.build import build_method, dummy_task
from nlbench.data.base import Info
from nlbench.errors import SuiteError
from nlbench.plan.memories import Memory, Need, Room, memories_of

# The training part of digits.
N, C = 1397, 10

OWN = '''"""Keeps soft labels in a way of its own."""
import torch
from nlbench import ops
from nlbench.method import Method, Task


class Own(Method):
    def __init__(self, task: Task):
        super().__init__(task)
        self.register_buffer("kept", torch.zeros(task.num_train, task.num_classes{dtype}))
        # None of these has a row of classes for each example.
        self.register_buffer("T", torch.eye(task.num_classes))
        self.register_buffer("weights", torch.ones(task.num_train))
        self.register_buffer("counts", torch.zeros(task.num_train, task.num_classes).long())

    def loss(self, logits, batch):
        return logits.logsumexp(1)
'''


def prepared(tmp_path, methods, *, methods_dir=None, **overrides):
    suite = {
        "name": "t",
        "protocol": "digits",
        "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
        "methods": methods,
        "seeds": [0, 1],
    }
    return api.prepare(
        suite, out=tmp_path / "out", overrides=overrides, device="cpu", methods_dir=methods_dir
    )


def own_method(tmp_path, dtype=""):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(textwrap.dedent(OWN.replace("{dtype}", dtype)))
    return folder


# ---- What is kept --------------------------------------------------------------------------------


def test_a_line_says_what_each_row_keeps_and_rows_without_it_have_none(tmp_path):
    sw = prepared(tmp_path, {"ce": {}, "elr": {}, "elr-plus": {}, "sop": {}})
    assert sw.about_memory() == [
        "elr keeps targets, 1,397 x 10 numbers in float32: 55.9 kB",
        "elr-plus keeps targets and targets1, 1,397 x 20 numbers in float32: 111.8 kB",
        "sop keeps v, 1,397 x 10 numbers in float32: 55.9 kB",
    ]
    # Above so many bytes alone.
    assert sw.about_memory(above=56_000) == sw.about_memory()[1:2]


def test_the_numbers_are_those_of_the_training_part_and_of_its_epochs(tmp_path):
    kept = {"subset": 500, "memory": "float16"}
    lines = prepared(tmp_path, {"alr": {}}, **kept).about_memory()
    assert lines == ["alr keeps targets, 500 x 10 numbers in float16: 10.0 kB"]

    lines = prepared(tmp_path, {"alr": {}}, val_fraction=0.1).about_memory()
    assert lines == [f"alr keeps targets, {N - 140:,} x 10 numbers in float32: 50.3 kB"]

    # It keeps the predictions of 10 of 320 epochs.
    lines = prepared(tmp_path, {"joint-optim": {}}, epochs=320).about_memory()
    assert lines == [
        "joint-optim keeps targets and recent, 1,397 x 110 numbers in float32: 614.7 kB"
    ]


def test_a_method_of_ones_own_is_looked_at_too(tmp_path):
    sw = prepared(tmp_path, {"own": {}}, methods_dir=own_method(tmp_path))
    assert sw.about_memory() == ["own keeps kept, 1,397 x 10 numbers in float32: 55.9 kB"]


def test_the_page_names_the_shipped_methods_that_heed_the_key_and_those_that_refuse_it():
    files = registry.method_files().values()
    heeds, refuses = set(), set()
    for file in files:
        if not file.module.startswith("nlbench.methods."):
            continue
        cls = registry.load_method(file)
        defaults = {name: one.default for name, one in registry.hyperparameters(cls).items()}
        task = dummy_task(Info("made", "Made", C, 300, 100, (1, 8, 8)))
        sizes = {memory.size for memory in memories_of(build_method(cls, defaults, task))}
        if sizes:
            (heeds if sizes == {0} else refuses).add(file.name)

    page = (Path(__file__).parents[2] / "docs" / "running.md").read_text()
    sentences = re.sub(r"\s+", " ", page).split(". ")
    (first,) = [text for text in sentences if text.endswith("heed it")]
    (second,) = [text for text in sentences if text.endswith("so they refuse it")]
    assert heeds | {"sam"} == set(re.findall(r"`([a-z-]+)`", first))
    assert refuses == set(re.findall(r"`([a-z-]+)`", second))


# ---- Who refuses ---------------------------------------------------------------------------------


def test_methods_that_cannot_keep_less_are_named_with_the_key(tmp_path):
    rows = {"ce": {}, "elr": {}, "pencil": {}, "second": {"method": "sop"}}
    with pytest.raises(SuiteError) as refused:
        prepared(tmp_path, rows, memory="bfloat16")
    assert str(refused.value).splitlines() == [
        "--set memory: must be float32 for pencil, got bfloat16: the method keeps u in a dtype of "
        "its own. fix: leave out the key, or the row",
        "--set memory: must be float32 for second, got bfloat16: the method keeps v in a dtype of "
        "its own. fix: leave out the key, or the row",
    ]
    assert len(prepared(tmp_path, rows, memory="float32").specs) == 8


def test_a_method_of_ones_own_that_does_not_heed_the_key_is_refused(tmp_path):
    with pytest.raises(SuiteError, match=r"must be float32 for own, got float16.* keeps kept in a"):
        prepared(tmp_path, {"own": {}}, methods_dir=own_method(tmp_path), memory="float16")


def test_a_method_of_ones_own_may_heed_the_key(tmp_path):
    folder = own_method(tmp_path, ", dtype=task.memory")
    sw = prepared(tmp_path, {"own": {}}, methods_dir=folder, memory="float16")
    assert sw.about_memory() == ["own keeps kept, 1,397 x 10 numbers in float16: 27.9 kB"]


# ---- What cannot fit -----------------------------------------------------------------------------

ELR = Need("elr", "Many", 1_000_000, 1000, (Memory("targets", 1000, 0),), "float32", True)
SOP = dataclasses.replace(ELR, row="sop", memories=(Memory("v", 1000, 4),))
CE = dataclasses.replace(ELR, row="ce", memories=())
GB = 10**9


def narrow(need):
    return dataclasses.replace(need, dtype="bfloat16")


def test_the_needs_of_a_run_by_hand():
    assert (ELR.kept, ELR.predictions) == (4 * GB, 4 * GB)
    # The state, its copy, and either the copy before or the predictions.
    assert ELR.on_host(has_gpu=False) == 12 * GB
    assert narrow(ELR).on_host(has_gpu=False) == (2 + 2 + 4) * GB
    assert CE.on_host(has_gpu=False) == 4 * GB
    # With a GPU the host has the copies alone.
    assert (ELR.on_gpu, ELR.on_host(has_gpu=True)) == (8 * GB, 8 * GB)
    assert (narrow(ELR).on_gpu, narrow(ELR).on_host(has_gpu=True)) == (6 * GB, 4 * GB)
    # A method that does not heed the dtype keeps its own.
    assert narrow(SOP).kept == 4 * GB


def test_what_fits_is_not_refused():
    assert Room(12 * GB, 0, 0, 1).refusals([ELR, ELR, CE]) == []
    assert Room(8 * GB, 1, 8 * GB, 1).refusals([ELR, ELR]) == []
    # Of a machine whose memory is unknown nothing can be said.
    assert Room(0, 0, 0, 1).refusals([ELR]) == []


def test_what_cannot_fit_into_the_machine_is_refused_once_with_the_fix():
    assert Room(10 * GB, 0, 0, 1).refusals([ELR, SOP, ELR, narrow(ELR)]) == [
        "elr keeps targets, 1,000,000 x 1,000 numbers in float32: 4.0 GB. A run on Many needs at "
        "least 12.0 GB, and this machine has 10.0 GB. fix: memory: bfloat16, which halves what the "
        "method keeps, or a smaller subset",
        "sop keeps v, 1,000,000 x 1,000 numbers in float32: 4.0 GB. A run on Many needs at least "
        "12.0 GB, and this machine has 10.0 GB. fix: a smaller subset",
    ]
    assert Room(GB, 0, 0, 1).refusals([CE]) == [
        "ce predicts 1,000,000 x 1,000 numbers at its end. A run on Many needs at least 4.0 GB, "
        "and this machine has 1.0 GB. fix: a smaller subset"
    ]


def test_what_cannot_fit_into_a_gpu_is_refused():
    (line,) = Room(100 * GB, 2, 7 * GB, 1).refusals([ELR, narrow(ELR)])
    assert "A run on Many needs at least 8.0 GB, and this GPU has 7.0 GB. fix: memory" in line


def test_runs_that_fit_alone_and_not_together_need_fewer_jobs():
    assert Room(20 * GB, 0, 0, 2).refusals([ELR, CE, ELR]) == [
        "runs that go on at the same time need at least 24.0 GB, and this machine has "
        "20.0 GB. fix: fewer --jobs"
    ]
    # One large run at a time is left.
    assert Room(20 * GB, 0, 0, 2).refusals([ELR, CE, CE]) == []
    assert Room(99 * GB, 1, 15 * GB, 2).refusals([ELR, ELR]) == [
        "runs that go on at the same time need at least 16.0 GB, and this GPU has "
        "15.0 GB. fix: fewer --jobs"
    ]
    # Each of two GPUs trains one, and the machine holds the copies of both.
    assert Room(16 * GB, 2, 8 * GB, 1).refusals([ELR, ELR]) == []
    (line,) = Room(15 * GB, 2, 8 * GB, 1).refusals([ELR, ELR])
    assert line.endswith("16.0 GB, and this machine has 15.0 GB. fix: fewer --jobs or --gpus")


def test_a_sweep_is_refused_before_its_first_run(tmp_path, monkeypatch):
    sw = prepared(tmp_path, {"ce": {}, "elr": {}}, epochs=1)
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 100_000)
    with pytest.raises(SuiteError, match=r"elr keeps targets, 1,397 x 10 .* at least 167\.6 kB"):
        sw.run()
    assert not list((tmp_path / "out" / "runs").glob("*"))

    # A narrow memory needs 2 x 28 kB and the predictions.
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 120_000)
    narrow = prepared(tmp_path, {"ce": {}, "elr": {}}, epochs=1, memory="bfloat16")
    narrow.run()
    assert narrow.failures() == []


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    limits = tmp_path / "memory.max", tmp_path / "missing"
    monkeypatch.setattr(hardware, "_MEMORY_LIMITS", limits)
    limits[0].write_text("max\n")
    whole = hardware.memory_bytes()
    assert whole > 10**8
    limits[0].write_text("1048576\n")
    assert hardware.memory_bytes() == 1_048_576
    limits[0].write_text(f"{2**63}\n")
    assert hardware.memory_bytes() == whole
