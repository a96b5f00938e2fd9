"""Several runs at once: the same numbers as one after the other, and reports about the right run."""

import itertools
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
    return sweep_in(out, methods, **{"subset": 200, **options})


class Sweeps:
    """The same runs trained one after the other, and by two workers, whose reports are kept."""

    def __init__(self, folder):
        # The last two share a helper network.
        methods = {"raises": {}, "ce": {}, "elr": {}, "forward": {}, "backward": {}}
        methods_dir = method_file(folder / "methods", "raises", RAISES)
        self.alone, self.together = (
            sweep(folder / name, methods, seeds=(0, 1), methods_dir=methods_dir)
            for name in ("alone", "together")
        )
        self.started, self.epochs, self.finished = [], {}, {}
        self.alone.run()
        self.together.run(
            listener(
                on_start=lambda spec: self.started.append(spec.key),
                on_epoch=self.on_epoch,
                on_finish=lambda spec, record: self.finished.update({spec.key: record}),
            ),
            jobs=2,
        )

    def on_epoch(self, spec, epoch, epochs, metrics):
        self.epochs.setdefault((spec.row, spec.seed), []).append((epoch, epochs, metrics["loss"]))


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    return Sweeps(tmp_path_factory.mktemp("sweeps"))


def outcome_of_done(sw):
    done = [spec for spec in sw.specs if spec.row != "raises"]
    return outcome(SimpleNamespace(specs=done, store=sw.store))


def test_results_do_not_depend_on_the_number_of_jobs(sweeps):
    assert outcome_of_done(sweeps.together) == outcome_of_done(sweeps.alone)
    fits = []
    for sw, jobs in ((sweeps.alone, 1), (sweeps.together, 2)):
        fits.append(sorted(path.name for path in sw.store.root.glob("fits/*.pt")))
        assert {sw.store.read(spec.key).environment["jobs"] for spec in sw.specs} == {jobs}
    assert fits[0] == fits[1]
    assert len(fits[0]) == 2  # one for each seed


def test_reports_are_about_the_right_run(sweeps):
    assert set(sweeps.started) == {spec.key for spec in sweeps.together.specs}
    assert set(sweeps.finished) == set(sweeps.started)
    for spec in sweeps.together.specs:
        assert sweeps.finished[spec.key].spec["method"] == spec.row
    for (row, seed), seen in sweeps.epochs.items():
        assert [(epoch, total) for epoch, total, _ in seen] == [(0, 2), (1, 2)], (row, seed)
    losses = [[loss for _, _, loss in seen] for seen in sweeps.epochs.values()]
    assert len(losses) == 8
    assert all(one != other for one, other in itertools.combinations(losses, 2))


def test_an_error_of_a_run_is_its_record_with_the_traceback(sweeps):
    failures = sweeps.together.failures()
    assert [record.spec["method"] for record in failures] == ["raises", "raises"]
    for failed in failures:
        assert "KeyError: 'no such thing'" in failed.error["message"]
        assert "raises.py" in failed.error["traceback"]


def test_a_store_that_cannot_be_written_ends_the_sweep(tmp_path, monkeypatch):
    sw = sweep(tmp_path / "out", {"ce": {}, "elr": {}})
    sw.store.require_writable()
    sw.store.run_dir(sw.specs[0].key).write_text("in the way")  # where the run's folder should be
    with pytest.raises(OSError, match=sw.specs[0].key):
        sw.run(jobs=2)


def test_the_lock_of_a_dead_process_is_undone_and_no_other(tmp_path):
    sw = sweep(tmp_path, {"ce": {}})
    lock = sw.store.run_dir("0" * 16) / "lock"
    lock.parent.mkdir(parents=True)
    for holder, left in ((f"{socket.gethostname()} 77", ""), ("elsewhere 77", "elsewhere 77"), ("", "")):
        lock.write_text(holder)
        sw.store.release("0" * 16, 77)
        assert lock.read_text() == left
    sw.store.release("1" * 16, 77)


def test_a_run_whose_worker_died_fails_unless_another_process_has_trained_it(tmp_path, sweeps):
    """Without processes; `tests/stories` kills real ones."""

    class Dead(workers.Worker):
        def __init__(self, sw, spec):
            self._options = base.RunOptions((torch.device("cpu"),), sw.data_dir, sw.methods)
            self.todo = base.Todo(spec, None)
            self.process = SimpleNamespace(wait=lambda: -9, pid=77)
            self.link = SimpleNamespace(recv=self.end_of_file)

        def end_of_file(self):
            raise EOFError

        def _start(self):
            pass

    sw = sweep(tmp_path, {"ce": {}, "elr": {}})
    sw.store.require_writable()
    ce, elr = sw.specs
    record = Dead(sw, ce).receive(sw.store).record
    assert record.status == "failed"
    assert "ended by SIGKILL" in record.error["message"]
    assert "--jobs" in record.error["message"]
    assert sw.store.read(ce.key) == record
    with sw.store.lock(elr.key):
        assert Dead(sw, elr).receive(sw.store).record is None
    theirs = next(spec for spec in sweeps.together.specs if spec.row == "ce")
    done = Dead(sweeps.together, theirs).receive(sweeps.together.store).record
    assert done.status == "done"


def test_how_many_jobs(tmp_path, monkeypatch):
    todo = sweep(tmp_path, {"ce": {}, "elr": {}}, threads=3).specs
    cpu, gpus = [torch.device("cpu")], [torch.device("cuda", 0), torch.device("cuda", 1)]
    for cores, expected in ((1, 1), (5, 1), (6, 2), (16, 5)):
        monkeypatch.setattr(hardware, "cores", lambda cores=cores: cores)
        assert workers.count_jobs("auto", todo, cpu) == expected
    assert workers.count_jobs("auto", todo, gpus) == 1
    assert workers.count_jobs(7, todo, gpus) == 7
    with pytest.raises(SuiteError, match="--jobs 0: must be at least 1"):
        workers.count_jobs(0, todo, cpu)


def test_runs_are_spread_over_the_devices(tmp_path, monkeypatch):
    """Which worker is started for which device; the workers themselves would need the GPUs."""
    started = []

    class Stands:
        todo = None

        def __init__(self, options, root, among):
            started.append((options.device, options.jobs, among))

        def end(self):
            pass

    monkeypatch.setattr(workers, "Worker", Stands)
    monkeypatch.setattr(workers, "share_out", lambda *args: None)
    sw = sweep(tmp_path, {"ce": {}, "elr": {}, "gce": {}})
    devices = torch.device("cuda", 0), torch.device("cuda", 2)
    options = base.RunOptions(devices, sw.data_dir, sw.methods, jobs=2)
    todo = [base.Todo(spec, None) for spec in sw.specs]
    workers.execute(todo, options, sw.store, base.Listener())
    assert started == [(devices[0], 2, 3), (devices[1], 2, 3), (devices[0], 2, 3)]  # three runs need three workers


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("cuda:0,cuda:0", "each must be another cuda:NUMBER"),
        ("cuda,cuda:1", "each must be another cuda:NUMBER"),
        ("cpu,cuda:0", "each must be another cuda:NUMBER"),
        ("cuda:0,cuda:9", "--device cuda:9: torch sees 2 GPUs here"),
        ("cuda:0,gpu", "--device gpu: must be auto, cpu, cuda or cuda:NUMBER"),
    ],
)
def test_devices_that_cannot_be(names, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SuiteError, match=said):
        base.pick_devices(names)


def test_several_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert base.pick_devices("cuda:0,cuda:2") == (torch.device("cuda", 0), torch.device("cuda", 2))


def test_more_threads_than_cores_are_warned_of(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    monkeypatch.setattr(workers, "execute", lambda *args: None)
    sw = sweep(tmp_path, {"ce": {}}, threads=2)
    sw.store.warn = said.append
    sw.run(jobs=2)
    assert [line for line in said if line.startswith("--jobs 2 of 2 threads each are too many for 2 cores")]
