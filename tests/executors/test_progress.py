"""The reports while runs train."""

import io
from types import SimpleNamespace

import pytest
from clocks import Clock
from rich.console import Console

from nlbench.errors import DataError
from nlbench.executors import progress as progress_module
from nlbench.executors.base import At
from nlbench.executors.progress import Progress
from nlbench.results.record import RunRecord


def test_a_warning_of_the_data_is_reported_once(capsys):
    spec = SimpleNamespace(row="ce", seed=0, condition=SimpleNamespace(title="birds"), key="0" * 16)
    record = SimpleNamespace(
        status="done",
        metrics={"last": 0.5},
        timing={"train": 1, "evaluate": 1},
        error=None,
        error_message="",
        warnings=["a.jpg; left out"],
    )

    # Two runs on the same data repeat the warning in their records.
    with Progress(2) as progress:
        for _ in range(2):
            progress.on_finish(spec, record)

    assert capsys.readouterr().err.count("warning: a.jpg; left out\n") == 1


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (DataError("a.jpg: torn"), False),
        (SystemExit("1 (mine.py:17: sys.exit(1))"), False),
        (RuntimeError("backward twice; fix: store it detached"), False),
        (KeyError(1), True),
    ],
)
def test_the_traceback_of_a_failed_run_is_printed_unless_its_message_says_where(
    capsys, error, shown
):
    spec = SimpleNamespace(row="ce", seed=0, condition=SimpleNamespace(title="birds"), key="0" * 16)
    facts = {"message": f"{type(error).__name__}: {error}", "traceback": "Traceback of it"}
    record = RunRecord(
        key=spec.key,
        status="failed",
        spec={"method": "ce", "seed": 0},
        metrics={},
        noise={},
        timing={},
        environment={},
        method={},
        code="",
        error=facts,
    )

    with Progress(1) as progress:
        progress.on_finish(spec, record)
    printed = capsys.readouterr().err

    assert f"failed: {facts['message']}" in printed
    assert ("Traceback of it" in printed) == shown


# --- lines in a terminal --------------------------------------------------------------------------


@pytest.fixture
def screen(monkeypatch):
    """Return a function that draws the lines of a progress in a terminal of this width."""

    def draw(width, act):
        out = io.StringIO()
        console = Console(file=out, width=width, force_terminal=True, highlight=False)
        monkeypatch.setattr(progress_module, "_console", lambda: console)
        with Progress(2) as progress:
            act(progress)
            lines = console.render_lines(progress._bars.get_renderable(), pad=False)
        return ["".join(segment.text for segment in line).rstrip() for line in lines]

    return draw


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress_module, "time", made)
    return made


def run_spec(row="ce", key="0" * 16):
    condition = SimpleNamespace(
        title="birds with a long name, symmetric 0.4, pixels of the authors"
    )
    protocol = SimpleNamespace(epochs=40)
    return SimpleNamespace(row=row, seed=0, condition=condition, key=key, protocol=protocol)


METRICS = {"loss": 1.1314, "test_accuracy": 0.705, "images_per_second": 4293.0}


def test_steps_and_the_time_left_are_shown_and_fit_80_columns(screen, clock):
    spec = run_spec("bootstrap-soft")

    def act(progress):
        progress.on_start(spec)
        progress.on_epoch(spec, 1, 40, METRICS)
        clock.now += 60
        progress.on_step(spec, At("run", 2, 40, 37, 391))

    suite, run = screen(80, act)
    # Two of 40 epochs and a bit took a minute.
    assert run.startswith("0:18:")
    assert "bootstrap-soft · seed 0 epoch 3/40  step 37/391" in run
    # Half an hour more for the second run.
    assert suite.startswith("0:37:")
    assert len(suite) <= 80
    assert len(run) <= 80


def test_an_estimate_comes_after_ten_steps(screen, clock):
    spec = run_spec()

    def act(progress, step):
        progress.on_start(spec)
        clock.now += 10
        progress.on_step(spec, At("run", 0, 40, step, 100))

    assert screen(120, lambda progress: act(progress, 9))[1].startswith("-:--:--")
    assert screen(120, lambda progress: act(progress, 10))[1].startswith("1:06:30")


def test_the_estimate_of_the_suite_stays_when_another_run_begins(screen, clock):
    first, second = run_spec("ce"), run_spec("gce", "1" * 16)

    def act(progress):
        progress.on_start(first)
        clock.now += 60
        progress.on_finish(
            first,
            SimpleNamespace(
                status="done",
                metrics={"last": 0.5},
                timing={"train": 60, "evaluate": 0},
                error=None,
                warnings=[],
            ),
        )
        progress.on_start(second)

    suite, run = screen(100, act)
    assert suite.startswith("0:01:00")
    assert run.startswith("-:--:--")


def test_a_phase_is_shown(screen):
    def act(progress):
        progress.on_start(run_spec())
        progress.on_phase(run_spec(), "reading the data")

    assert "reading the data" in screen(80, act)[1]


def test_the_request_to_stop_is_printed(capsys):
    with Progress(1) as progress:
        progress.on_stop("stopping; finished runs are kept.")
    assert capsys.readouterr().err == "stopping; finished runs are kept.\n"


# --- The estimate of a sweep ----------------------------------------------------------------------

FASTER = ["--jobs 2 trains 2 runs at the same time, and not 1"]


def printed(capsys, clock, seconds, *, total=50, faster=FASTER, epochs=40):
    """Return what is printed after a first epoch that has taken so long, and after a second."""
    spec = run_spec()
    with Progress(total, faster=faster) as progress:
        progress.on_start(spec)
        # Reading the data is no part of an epoch.
        clock.now += 500
        progress.on_step(spec, At("run", 0, epochs, 1, 100))
        clock.now += seconds
        progress.on_epoch(spec, 0, epochs, METRICS)
        progress.on_epoch(spec, 1, epochs, METRICS)
    return capsys.readouterr().err


def test_a_sweep_that_takes_long_by_its_first_epoch_is_announced_once(capsys, clock):
    assert printed(capsys, clock, 30) == (
        "estimate: 50 runs take about 17 hours from now, if all are like this one: an epoch of ce "
        "took 30 s, a run has 40, and 1 is trained at a time\n"
        "it would take less time with:\n"
        "  --jobs 2 trains 2 runs at the same time, and not 1\n"
    )
    assert "1 run takes about 20 minutes" in printed(capsys, clock, 30, total=1)
    assert "50 runs take about 3.2 days" in printed(capsys, clock, 138)
    assert "less time" not in printed(capsys, clock, 30, faster=[])


def test_a_sweep_of_ten_minutes_is_not_announced(capsys, clock):
    # 50 runs of 40 epochs take 598 s.
    assert printed(capsys, clock, 0.299) == ""
    assert printed(capsys, clock, 0.31).startswith("estimate: 50 runs take about 10 minutes")


def test_runs_at_the_same_time_share_the_time(capsys, clock):
    first, second = run_spec("ce"), run_spec("gce", "1" * 16)
    with Progress(50) as progress:
        progress.on_start(first)
        progress.on_start(second)
        progress.on_epoch(first, 0, 40, {**METRICS, "seconds": 36.0})
    assert "about 10 hours" in (err := capsys.readouterr().err)
    assert "2 are trained at a time" in err


DONE = SimpleNamespace(
    status="done",
    metrics={"last": 0.5},
    timing={"train": 60, "evaluate": 0},
    error=None,
    error_message="",
    warnings=[],
)


def test_a_run_that_continues_counts_by_its_first_epoch_that_was_begun_here(capsys, clock):
    spec = run_spec()
    with Progress(1) as progress:
        progress.on_start(spec)
        progress.on_resume(spec, 18, 40)
        # An earlier process had begun this epoch, on a machine that slept meanwhile.
        progress.on_epoch(spec, 18, 40, {**METRICS, "seconds": 40_000.0})
        # Twenty epochs are left after this one.
        progress.on_epoch(spec, 19, 40, {**METRICS, "seconds": 36.0})
        progress.on_epoch(spec, 20, 40, {**METRICS, "seconds": 36.0})
    err = capsys.readouterr().err
    assert err.count("estimate:") == 1
    assert "estimate: 1 run takes about 12 minutes from now" in err


def test_a_long_epoch_is_given_in_words(capsys, clock):
    spec = run_spec()
    with Progress(1) as progress:
        progress.on_start(spec)
        progress.on_epoch(spec, 0, 40, {**METRICS, "seconds": 2672.0})
    assert "an epoch of ce took 45 minutes, a run has 40" in capsys.readouterr().err


def test_the_estimate_counts_the_runs_that_are_left(capsys, clock):
    runs = [run_spec("ce"), run_spec("gce", "1" * 16)]
    with Progress(3) as progress:
        for spec, seconds in zip(runs, (1.0, 20.0), strict=True):
            progress.on_start(spec)
            progress.on_epoch(spec, 0, 40, {**METRICS, "seconds": seconds})
            progress.on_epoch(spec, 39, 40, {**METRICS, "seconds": seconds})
            progress.on_finish(spec, DONE)
    # 39 epochs of 20 s, and one run of the mean of 40 s and 800 s.
    assert "estimate: the 2 runs left take about 20 minutes from now, if" in capsys.readouterr().err

    with Progress(2) as progress:
        progress.on_finish(runs[0], DONE)
        progress.on_start(runs[1])
        progress.on_epoch(runs[1], 0, 40, {**METRICS, "seconds": 20.0})
    assert "estimate: the run left takes about 13 minutes from now" in capsys.readouterr().err


def test_a_later_first_epoch_announces_a_sweep_that_the_first_one_did_not(capsys, clock):
    quick, slow = run_spec("ce"), run_spec("dividemix", "1" * 16)
    with Progress(50) as progress:
        progress.on_start(quick)
        progress.on_epoch(quick, 0, 100, {**METRICS, "seconds": 0.1})
        progress.on_finish(quick, DONE)
        assert "estimate" not in capsys.readouterr().err
        progress.on_start(slow)
        progress.on_epoch(slow, 0, 100, {**METRICS, "seconds": 60.0})
    # 99 epochs of 60 s, and 48 runs of the mean of 10 s and 6,000 s.
    assert capsys.readouterr().err == (
        "estimate: the 49 runs left take about 42 hours from now, if the others are like the 2 "
        "begun so far: a run takes 50 minutes on average, and 1 is trained at a time\n"
    )


def test_a_run_that_another_one_outlasts_counts_as_far_as_it_is_finished(capsys, clock):
    first, second = run_spec("ce"), run_spec("gce", "1" * 16)
    with Progress(2) as progress:
        progress.on_start(first)
        progress.on_start(second)
        progress.on_epoch(first, 0, 40, {**METRICS, "seconds": 1.0})
        progress.on_epoch(first, 29, 40, {**METRICS, "seconds": 1.0})
        progress.on_epoch(second, 0, 40, {**METRICS, "seconds": 60.0})
    # 39 epochs of 60 s. Beside them, and not after them, 10 epochs of 1 s.
    assert "2 runs take about 39 minutes from now" in capsys.readouterr().err


def test_a_sweep_is_long_by_what_it_has_taken_and_by_what_is_left(capsys, clock):
    spec = run_spec()
    for seconds, long in ((59.9, False), (61.0, True)):
        with Progress(1) as progress:
            progress.on_start(spec)
            progress.on_epoch(spec, 0, 10, {**METRICS, "seconds": seconds})
        assert ("estimate: 1 run takes about 9 minutes" in capsys.readouterr().err) == long
