"""Whole sweeps with loggers: the same records as without, each run and each epoch once."""

import json
import tempfile
from pathlib import Path

import pytest
from sweeps import outcome, suite, sweep
from watchers import Keeper, Raising

import nlbench
from nlbench.errors import UserError
from nlbench.watching import choice
from nlbench.watching.feed import watching

LOGGER = '''
"""Writes a line for each call to a file."""

import json, os, tempfile
from pathlib import Path

# As the packages of trackers do.
os.environ["MADE_BY_A_LOGGER"] = "1"


def open_logger(value, out):
    if value == "refused":
        from nlbench.errors import UserError
        raise UserError("the logger is told something wrong")
    print("printed by a logger")
    return Lines(out / "lines.jsonl")


class Lines:
    def __init__(self, path):
        self.path = path

    def _write(self, *values):
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\\n")

    def begin(self, run, fresh):
        self._write("begin", run.key, fresh)
        if fresh or not self.path.exists():
            return ()
        lines = map(json.loads, self.path.read_text().splitlines())
        return [line[2] for line in lines if line[:2] == ["epoch", run.key]]

    def epoch(self, run, epoch, metrics):
        self._write("epoch", run.key, epoch)

    def ended(self, run, record):
        self._write("ended", run.key, record.status)

    def close(self):
        self._write("close")
        (self.path.parent / "left").write_text(tempfile.mkdtemp())
'''


@pytest.fixture
def logger_file(tmp_path):
    """Return the path of a file with a logger of one's own."""
    path = tmp_path / "lines.py"
    path.write_text(LOGGER)
    return str(path)


def watched(sw, loggers, **options):
    """Train a sweep with loggers, and return the lines that were printed."""
    lines = []
    with watching(loggers, sw.store.root, lines.append) as watch:
        sw.run(watch.listener(sw.plan, sw.store, None), **options)
    return lines


@pytest.mark.parametrize("executor", ["workers", "local"])
def test_records_are_the_same_with_and_without_loggers(
    tmp_path, executor, logger_file, capfd, monkeypatch
):
    monkeypatch.setenv("NLBENCH_EXECUTOR", executor)
    methods = {"ce": {}, "elr": {}}
    alone = sweep(tmp_path / "alone", methods, subset=200)
    alone.run()

    keeper = Keeper()
    sw = sweep(tmp_path / "watched", methods, subset=200)
    lines = watched(sw, [keeper, Raising(), logger_file], jobs=2 if executor == "workers" else None)

    assert outcome(sw) == outcome(alone)
    for spec in sw.specs:
        assert sw.store.read(spec.key).warnings == alone.store.read(spec.key).warnings
        assert keeper.epochs(spec.key) == [0, 1]
        assert keeper.told.count(("begin", spec.key, True)) == 1
        assert keeper.told.count(("ended", spec.key, "done")) == 1
    assert len(lines) == 1
    assert lines[0].startswith("the logger Raising is switched off")

    told = (tmp_path / "watched" / "lines.jsonl").read_text().splitlines()
    assert sorted(told) == sorted(json.dumps(list(call)) for call in keeper.told)
    # What it leaves in the folder for temporary files is removed.
    left = Path((tmp_path / "watched" / "left").read_text())
    assert left.parent.parent == Path(tempfile.gettempdir())
    assert not left.parent.exists()
    # What a logger prints does not get between the lines of the progress.
    assert "printed by a logger" not in "".join(capfd.readouterr())


def test_a_run_that_was_stopped_continues_its_curve(tmp_path, logger_file):
    keeper = Keeper()
    sw = sweep(tmp_path / "store", {"ce": {}}, subset=200, epochs=4)
    lines = []
    with watching([keeper, logger_file], sw.store.root, lines.append) as watch:
        listener = watch.listener(sw.plan, sw.store, None)
        on_epoch = listener.on_epoch

        def stop_after_two(spec, epoch, epochs, metrics):
            on_epoch(spec, epoch, epochs, metrics)
            if epoch == 1:
                raise KeyboardInterrupt

        listener.on_epoch = stop_after_two
        with pytest.raises(KeyboardInterrupt):
            sw.run(listener, checkpoint_epochs=1)

    again = sweep(tmp_path / "store", {"ce": {}}, subset=200, epochs=4)
    watched(again, [logger_file])

    told = map(json.loads, (tmp_path / "store" / "lines.jsonl").read_text().splitlines())
    epochs = [call[2] for call in told if call[0] == "epoch"]
    assert epochs == [0, 1, 2, 3]
    assert lines == []


def test_python_takes_loggers_as_objects_and_as_texts(tmp_path, logger_file):
    keeper = Keeper()
    options = {"overrides": {"epochs": 1, "subset": 200}, "device": "cpu", "progress": False}
    frame = nlbench.run(
        suite({"ce": {}}), out=tmp_path / "s", loggers=[keeper, logger_file], **options
    )
    assert keeper.epochs(frame.index[0]) == [0]
    assert (tmp_path / "s" / "lines.jsonl").exists()

    with pytest.raises(TypeError, match="must be a list"):
        nlbench.run(suite({"ce": {}}), out=tmp_path / "s", loggers="tensorboard", **options)


def test_what_the_user_can_mend_is_said_before_anything_is_trained(
    tmp_path, logger_file, monkeypatch
):
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package\n")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    cases = {
        f"{logger_file}:refused": "told something wrong",
        str(broken): "cannot be imported: ModuleNotFoundError",
        str(empty): "no function open_logger",
    }
    for text, message in cases.items():
        sw = sweep(tmp_path / "store", {"ce": {}})
        lines = []
        with (
            pytest.raises(UserError, match=message),
            watching([text], sw.store.root, lines.append),
        ):
            pass
        # The error says it, and no training goes on.
        assert lines == []
    sw = sweep(tmp_path / "store", {"ce": {}})
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        watched(sw, ["tensorboard"])
    assert not (tmp_path / "store").exists()


def test_a_process_that_dies_is_named_with_its_last_words(tmp_path, monkeypatch):
    # With it Python writes everything at once, and a user seldom sets it.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    file = tmp_path / "dies.py"
    body = 'import os; os.write(2, b"killed by a test"); os._exit(3)'
    file.write_text(LOGGER.replace('self._write("ended", run.key, record.status)', body))
    sw = sweep(tmp_path / "store", {"ce": {}}, subset=200, epochs=1)
    lines = watched(sw, [str(file)])
    assert len(lines) == 1
    assert lines[0].endswith("its process has ended: printed by a logger killed by a test")
    assert sw.store.read(sw.specs[0].key).status == "done"
