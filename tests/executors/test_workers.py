"""Several runs at once have the same numbers as one after the other, and the right reports."""

import socket
from types import SimpleNamespace

import pytest
import torch
from sweeps import listener, method_file, outcome
from sweeps import sweep as sweep_in

from nlbench import hardware
from nlbench.errors import SuiteError
from nlbench.executors import base, workers

RAISES = """
    class Raises(Method):
        def loss(self, logits, batch):
            raise KeyError("no such thing")
"""


def sweep(out, methods, **options):
    """Return a prepared sweep of these rows on 200 noisy digits."""
    return sweep_in(out, methods, **{"subset": 200, **options})


class Sweeps:
    """Train the same runs one after the other and by two workers, and keep the workers' reports."""

    def __init__(self, folder):
        # The last two share a helper network, so two workers may want it at once.
        methods = {"raises": {}, "ce": {}, "elr": {}, "forward": {}, "backward": {}}
        methods_dir = method_file(folder / "methods", "raises", RAISES)
        same = {"seeds": (0, 1), "methods_dir": methods_dir}
        self.alone = sweep(folder / "alone", methods, **same)
        self.together = sweep(folder / "together", methods, **same)
        self.started, self.epochs, self.finished = [], {}, {}

        self.alone.run()
        hooks = {"on_start": self.on_start, "on_epoch": self.on_epoch, "on_finish": self.on_finish}
        self.together.run(listener(**hooks), jobs=2)

    def on_start(self, spec):
        self.started.append(spec.key)

    def on_finish(self, spec, record):
        self.finished[spec.key] = record

    def on_epoch(self, spec, epoch, epochs, metrics):
        self.epochs.setdefault((spec.row, spec.seed), []).append((epoch, epochs, metrics["loss"]))


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """Return the two trained sweeps. Tests only read them."""
    return Sweeps(tmp_path_factory.mktemp("sweeps"))


def outcome_of_done(sw):
    """Return the outcomes of the runs that did not fail on purpose."""
    done = [spec for spec in sw.specs if spec.row != "raises"]
    return outcome(SimpleNamespace(specs=done, store=sw.store))


# --- numbers, reports and errors ------------------------------------------------------------------


def test_results_do_not_depend_on_the_number_of_jobs(sweeps):
    assert outcome_of_done(sweeps.together) == outcome_of_done(sweeps.alone)

    helpers = []
    for sw, jobs in ((sweeps.alone, 1), (sweeps.together, 2)):
        helpers.append(sorted(path.name for path in sw.store.root.glob("fits/*.pt")))
        for spec in sw.specs:
            assert sw.store.read(spec.key).environment["jobs"] == jobs

    assert helpers[0] == helpers[1]
    # One helper network for each seed.
    assert len(helpers[0]) == 2


def test_reports_are_about_the_right_run(sweeps):
    assert set(sweeps.started) == {spec.key for spec in sweeps.together.specs}
    assert set(sweeps.finished) == set(sweeps.started)
    for spec in sweeps.together.specs:
        assert sweeps.finished[spec.key].spec["method"] == spec.row

    losses = []
    for run, (first, second) in sweeps.epochs.items():
        assert first[:2] == (0, 2), run
        assert second[:2] == (1, 2), run
        losses.append((first[2], second[2]))

    # Each run has losses of its own, so a report about another run would be seen.
    assert len(losses) == len(set(losses)) == 8


def test_an_error_of_a_run_is_its_record_with_the_traceback(sweeps):
    failures = sweeps.together.failures()
    assert [record.spec["method"] for record in failures] == ["raises", "raises"]
    for failed in failures:
        assert "KeyError: 'no such thing'" in failed.error["message"]
        assert "raises.py" in failed.error["traceback"]


# --- stores that fail, and workers that die -------------------------------------------------------


def test_a_store_that_cannot_be_written_ends_the_sweep(tmp_path, monkeypatch):
    sw = sweep(tmp_path / "out", {"ce": {}, "elr": {}})
    sw.store.require_writable()
    # A file where the run's folder should be lets the worker fail, but not the check before it.
    sw.store.run_dir(sw.specs[0].key).write_text("in the way")
    with pytest.raises(OSError, match=sw.specs[0].key):
        sw.run(jobs=2)


def test_the_lock_of_a_dead_process_is_undone_and_no_other(tmp_path):
    sw = sweep(tmp_path, {"ce": {}})
    lock = sw.store.run_dir("0" * 16) / "lock"
    lock.parent.mkdir(parents=True)
    for holder, left in (
        (f"{socket.gethostname()} 77", ""),
        ("elsewhere 77", "elsewhere 77"),
        ("", ""),
    ):
        lock.write_text(holder)
        sw.store.release("0" * 16, 77)
        assert lock.read_text() == left

    sw.store.release("1" * 16, 77)


# --- jobs, devices and threads --------------------------------------------------------------------


def test_how_many_jobs(tmp_path, monkeypatch):
    todo = sweep(tmp_path, {"ce": {}, "elr": {}}, threads=3).specs
    cpu, gpus = [torch.device("cpu")], [torch.device("cuda", 0), torch.device("cuda", 1)]

    # Each run has three threads.
    for cores, expected in ((1, 1), (5, 1), (6, 2), (16, 5)):
        monkeypatch.setattr(hardware, "cores", lambda cores=cores: cores)
        assert base.count_jobs("auto", todo, cpu) == expected

    assert base.count_jobs("auto", todo, gpus) == 1
    assert base.count_jobs(7, todo, gpus) == 7
    with pytest.raises(SuiteError, match="--jobs 0: must be at least 1"):
        base.count_jobs(0, todo, cpu)


def test_runs_are_spread_over_the_devices(tmp_path):
    devices = torch.device("cuda", 0), torch.device("cuda", 2)
    options = base.RunOptions(devices, tmp_path, {}, jobs=2)

    # Two jobs a device would be four places, but three runs need no more than three.
    assert workers.places_for(3, options) == [devices[0], devices[1], devices[0]]
    assert workers.places_for(9, options) == [*devices, *devices]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cuda:0,cuda:0", "each must be another cuda:NUMBER"),
        ("cuda,cuda:1", "each must be another cuda:NUMBER"),
        ("cpu,cuda:0", "each must be another cuda:NUMBER"),
        ("cuda:0,cuda:9", "--device cuda:9: torch sees 2 GPUs here"),
        ("cuda:0,gpu", "--device gpu: must be auto, cpu, cuda or cuda:NUMBER"),
    ],
)
def test_devices_that_cannot_be(names, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SuiteError, match=message):
        base.pick_devices(names)


def test_several_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert base.pick_devices("cuda:0,cuda:2") == (torch.device("cuda", 0), torch.device("cuda", 2))


def test_more_threads_than_cores_are_warned_of(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    monkeypatch.setattr(workers, "execute", lambda *args: None)
    sw = sweep(tmp_path, {"ce": {}}, threads=2)
    sw.store.warn = warnings.append
    sw.run(jobs=2)

    expected = "--jobs 2 of 2 threads each are too many for 2 cores"
    assert any(line.startswith(expected) for line in warnings)


def test_the_fork_server_imports_ahead_what_methods_name_and_no_more(tmp_path):
    def ahead(row):
        sw = sweep(tmp_path / row, {row: {}})
        todo = [base.Todo(spec, None) for spec in sw.specs]
        options = base.RunOptions((torch.device("cpu"),), tmp_path, sw.methods)
        return [name for name in workers.preloaded(todo, options) if not name.startswith("torch")]

    # Digits are read without scikit-learn, which takes more than a second to import.
    assert ahead("ce") == ["nlbench.training.train"]
    # It imports sklearn.mixture.
    assert "nlbench.ops.gaussian_mixture" in ahead("dividemix")
