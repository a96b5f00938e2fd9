"""A method can harm its own run, and neither the sweep nor the numbers of other rows."""

import re
from types import SimpleNamespace

import hostile
import pytest
from sweeps import outcome
from sweeps import sweep as sweep_in

HONEST = ("ce", "gce", "elr")

# A few of them are tried by default, and all of them among the stories.
SOME = (
    "os-exit-0",
    "ctrl-c",
    "closes-streams",
    "replaces-step",
    "flag",
    "prints",
    "killed",
    "memory",
)


# A hostile method in the process of the tests would end it, without a failure. So the executor is
# named before a sweep is prepared, which looks for it.
@pytest.fixture(autouse=True, scope="module")
def _in_a_process_of_their_own():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLBENCH_EXECUTOR", "workers")
        yield


def sweep(out, methods, **more):
    """Return a prepared sweep of these rows on 200 noisy digits."""
    return sweep_in(out, methods, subset=200, **more)


class Trained:
    """Honest rows alone, and the same rows between hostile ones."""

    def __init__(self, folder, names, jobs=1):
        self.names = names
        self.alone = sweep(folder / "alone", {row: {} for row in HONEST})
        methods_dir = hostile.write(folder / "methods", names)
        self.together = sweep(
            folder / "together", hostile.rows(HONEST, names), methods_dir=methods_dir
        )
        self.alone.run()
        self.together.run(jobs=jobs)

    def record(self, row):
        """Return the record of a row."""
        (spec,) = (spec for spec in self.together.specs if spec.row == row)
        return self.together.store.read(spec.key)


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """Return a sweep with a few hostile methods. Tests only read it."""
    return Trained(tmp_path_factory.mktemp("some"), SOME)


def check(trained):
    """Compare the honest rows with those of a sweep without the others, and each hostile run."""
    honest = [spec for spec in trained.together.specs if spec.row in HONEST]
    together = SimpleNamespace(specs=honest, store=trained.together.store)
    # Metrics, histories and predictions, bit for bit.
    assert outcome(together) == outcome(trained.alone)

    problems = []
    for name in trained.names:
        expected, record = hostile.METHODS[name], trained.record(name)
        if record.status != ("failed" if expected.failed else "done"):
            problems.append(f"{name}: {record.status}, {record.error_message}")
        if expected.failed and not re.search(expected.failed, record.error_message, re.S):
            problems.append(f"{name}: {record.error_message}")
        if not expected.failed and not expected.named and record.warnings:
            problems.append(f"{name}: {record.warnings}")
        for warning in expected.named.split("|") if expected.named else ():
            if not any(warning in line and name in line for line in record.warnings):
                problems.append(f"{name}: {warning!r} is not in {record.warnings}")
    assert problems == []


def test_some_hostile_methods_fail_alone_or_are_named(some):
    check(some)


@pytest.mark.parametrize("name", ["killed", "memory"])
def test_a_run_that_memory_has_ended_is_recorded_with_its_peak(some, name):
    record = some.record(name)

    # torch alone has more, and this machine has less.
    assert 50e6 < record.error["peak_memory"] < 1e12


def test_what_a_method_prints_does_not_reach_standard_output(some, capfd):
    folder = some.together.store.root.parent
    again = sweep(folder / "again", {"prints": {}}, methods_dir=folder / "methods")
    again.run()
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "JUNK" in printed.err


@pytest.mark.story
@pytest.mark.parametrize("jobs", [1, 2])
def test_all_hostile_methods_fail_alone_or_are_named(tmp_path, jobs):
    check(Trained(tmp_path, tuple(hostile.METHODS), jobs))


@pytest.mark.story
def test_a_run_that_hangs_is_ended_and_the_hook_is_named(tmp_path):
    folder = tmp_path / "methods"
    folder.mkdir()
    stuck = hostile.Hostile("signal.signal(15, signal.SIG_IGN)\nwhile True: pass", "on_epoch_end")
    (folder / "stuck.py").write_text(stuck.source())
    sw = sweep(tmp_path / "out", {"stuck": {}, "ce": {}}, methods_dir=folder)
    # It has to be longer than the process takes to read its data, also on a busy machine.
    sw.run(timeout=0.5)

    (failed,) = sw.failures()
    assert re.search(
        r"no sign of life for 0.5 minutes, last seen in .*stuck.py.* in on_epoch_end",
        failed.error_message,
    )
    assert sw.store.read(sw.specs[1].key).status == "done"
