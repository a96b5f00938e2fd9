"""What a node of a cluster does for one run: the same numbers, and no record in the store."""

import dataclasses
import signal
from pathlib import Path

import pytest
from sweeps import method_file, sweep

from nlbench.data import places
from nlbench.errors import StoreError
from nlbench.executors import _node
from nlbench.executors._sent_files import SentFiles
from nlbench.executors.base import RunOptions, Todo, pick_devices
from nlbench.training.record import code_of

EXITS = """
    import os

    class Exits(Method):
        def loss(self, logits, batch):
            os._exit(7)
"""
OWN = """
    from ._half import HALF

    class Own(Method):
        def loss(self, logits, batch):
            return HALF * F.cross_entropy(logits, batch.labels, reduction="none")
"""


class Node:
    """A node that trains the runs of one sweep.

    Args:
        sees: whether the node sees the folder of the sweep.
    """

    def __init__(self, folder, monkeypatch, rows, *, sees=True, methods_dir=None, **options):
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        self.sweep = sweep(folder / "out", rows, methods_dir=methods_dir, subset=200)
        self.store = self.sweep.store
        self.store.require_writable()
        if sees:
            (self.store.root / "token").touch()
        self.options = RunOptions(
            pick_devices("cpu"), places.data_dir(), self.sweep.methods, jobs=0, **options
        )
        self.reports = []

    def task(self, row, **changes):
        spec = next(spec for spec in self.sweep.specs if spec.row == row)
        task = _node.Task(
            todo=Todo(spec, None),
            wait=True,
            options=self.options,
            root=self.store.root.absolute(),
            token="token",
            owner="sweep",
            code=code_of(spec, self.options),
            modules=("nlbench.training.train",),
            files=SentFiles.of(spec, self.options.methods),
            slots=3,
        )
        return dataclasses.replace(task, **changes)

    def train(self, task):
        def fetch(path):
            raise AssertionError(f"{path} lies here")

        def report(hook, values):
            self.reports.append(hook)

        return _node.train(task, fetch, report)


def numbers(history):
    """Return epoch metrics without those of the clock."""
    clocks = ("seconds", "images_per_second")
    return [
        {name: value for name, value in epoch.items() if name not in clocks} for epoch in history
    ]


@pytest.mark.story
@pytest.mark.parametrize("sees", [True, False])
def test_a_node_trains_as_the_sweeps_own_machine_and_writes_no_record(tmp_path, monkeypatch, sees):
    node = Node(tmp_path, monkeypatch, {"forward": {}}, sees=sees, save_weights=True)
    task = node.task("forward")
    result = node.train(task)
    key = task.todo.spec.key

    assert not node.store.record_path(key).exists()
    assert {"on_start", "on_epoch", "on_fit"} <= set(node.reports)
    # What lies in the sweep's folder is what the node saw of it.
    assert bool(list(node.store.root.glob("fits/*.pt"))) == sees
    assert (node.store.run_dir(key) / "weights.pt").exists() == sees
    assert (result.weights is None) == sees

    node.sweep.run(save_weights=True)
    own = node.store.read(key)
    assert (result.record.metrics, result.record.noise) == (own.metrics, own.noise)
    assert result.record.environment == {**own.environment, "jobs": 3}
    node.store.write(result.record, result.history, result.predictions)
    assert node.store.read(key).metrics == own.metrics
    assert len(numbers(result.history)) == 2


def test_a_method_that_ends_its_process_fails_alone(tmp_path, monkeypatch):
    methods_dir = method_file(tmp_path / "methods", "exits", EXITS)
    node = Node(tmp_path, monkeypatch, {"exits": {}, "ce": {}}, methods_dir=methods_dir)
    record = node.train(node.task("exits")).record
    assert record.status == "failed"
    assert "ended its process with status 7" in record.error_message
    assert "exits.py" in record.error_message
    assert node.train(node.task("ce")).record.status == "done"


def test_the_users_method_and_its_helper_reach_a_node_that_lacks_them(tmp_path, monkeypatch):
    methods_dir = method_file(tmp_path / "methods", "own", OWN)
    (methods_dir / "_half.py").write_text("HALF = 0.5\n")
    node = Node(tmp_path, monkeypatch, {"own": {}}, methods_dir=methods_dir)
    task = node.task("own")
    assert sorted(task.files.sources) == ["methods/_half.py", "methods/own.py"]
    first = node.train(task)

    # Other content under the same name must not be used.
    (methods_dir / "_half.py").write_text("HALF = 2.0\n")
    second = node.train(task)
    assert first.record.status == second.record.status == "done"
    assert second.record.code == task.code
    assert numbers(first.history) == numbers(second.history)


def test_a_file_that_the_node_lacks_is_fetched(tmp_path):
    there, known = tmp_path / "T.npy", tmp_path / "scratch"
    there.write_bytes(b"matrix")
    (spec,) = sweep(tmp_path / "out", {"ce": {}}).specs
    spec = dataclasses.replace(spec, weights_path=str(there))
    methods = sweep(tmp_path / "out", {"ce": {}}).methods
    files = SentFiles.of(spec, methods)
    fetched = []

    def fetch(path):
        fetched.append(path)
        return b"matrix"

    same, _ = files.on_this_node(spec, methods, known, fetch)
    assert (same.weights_path, fetched) == (str(there), [])
    there.write_bytes(b"another")
    moved, _ = files.on_this_node(spec, methods, known, fetch)
    assert fetched == [str(there)]
    assert Path(moved.weights_path).read_bytes() == b"matrix"
    assert moved.key == spec.key
    # The copy serves the next run.
    files.on_this_node(spec, methods, known, fetch)
    assert fetched == [str(there)]


def test_a_node_with_other_code_or_data_refuses(tmp_path, monkeypatch):
    node = Node(tmp_path, monkeypatch, {"ce": {}})
    with pytest.raises(_node.Refused, match=r"computes with other code .* install the same"):
        node.train(node.task("ce", code="0" * 16))

    task = node.task("ce")
    other = dataclasses.replace(task.todo.spec, fingerprint="0" * 16)
    with pytest.raises(_node.Refused, match=r"its data of digits are others .* copy the files"):
        node.train(dataclasses.replace(task, todo=Todo(other, None)))


def test_a_node_without_the_data_refuses_and_says_what_it_lacks(tmp_path, monkeypatch):
    node = Node(tmp_path, monkeypatch, {"ce": {}})
    task = node.task("ce")
    condition = dataclasses.replace(task.todo.spec.condition, dataset="cifar10")
    spec = dataclasses.replace(task.todo.spec, condition=condition)
    task = dataclasses.replace(task, todo=Todo(spec, None), code=code_of(spec, node.options))
    monkeypatch.setenv("NLBENCH_DATA", str(tmp_path / "nowhere"))
    task = dataclasses.replace(
        task, options=dataclasses.replace(node.options, data_dir=tmp_path / "no-such-folder")
    )
    with pytest.raises(_node.Refused, match=r"cifar10: missing in .*nowhere"):
        node.train(task)


def test_a_store_that_was_replaced_ends_the_sweep_and_not_the_node(tmp_path, monkeypatch):
    """All nodes would meet the same."""
    node = Node(tmp_path, monkeypatch, {"ce": {}})

    def fail(*args):
        raise StoreError("out: was replaced")

    monkeypatch.setattr(_node, "_in_its_process", fail)
    with pytest.raises(StoreError):
        node.train(node.task("ce"))
    with pytest.raises(_node.Refused):
        node.train(node.task("ce", token="not there"))


def test_a_run_that_is_asked_to_stop_leaves_a_checkpoint_and_goes_on_from_it(tmp_path, monkeypatch):
    node = Node(tmp_path, monkeypatch, {"ce": {}}, sees=False)
    task = node.task("ce")

    def report(hook, values):
        node.reports.append(hook)
        if hook == "on_epoch" and node.reports.count("on_epoch") == 1:
            # As Ray does when a task is cancelled.
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _node.train(task, lambda path: b"", report)
    assert "on_resume" not in node.reports
    result = _node.train(task, lambda path: b"", report)
    assert "on_resume" in node.reports
    assert result.record.status == "done"


def test_what_a_node_has_kept_is_forgotten_unless_it_is_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with _node.scratch("sweep") as folder:
        (folder / "kept").touch()
        _node.forget("sweep")
        assert (folder / "kept").exists()
    _node.forget("sweep")
    assert not folder.exists()
