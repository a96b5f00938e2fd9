"""A run that a signal or a budget stops ends within seconds, and goes on to the same result.

`pytest tests/stories/test_stopping.py -m "" -n 0 -s` prints a table of the seconds, statuses and
places of the stops, for every method and signal.
"""

import random
import signal
import subprocess
import time

import pytest
import torch
from sweeps import history, method_file, predictions
from trial import NLBENCH

from nlbench.results.store import Store

pytestmark = pytest.mark.story

SUITE = """\
name: stopped
protocol: digits
datasets:
  - {{name: digits, noise: {{kind: symmetric, rate: 0.4}}}}
methods:
  {method}: {{}}
seeds: {seeds}
overrides: {{epochs: 6, batch_size: 16}}
"""

# One network, a helper network, two networks that train one after the other or together, mixing
# with a generator of the method's own, and an optimiser of the method's own.
METHODS = ("ce", "forward", "elr-plus", "dividemix", "co-teaching", "mixup", "sop")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
SECONDS = {signal.SIGTERM: 10, signal.SIGUSR1: 10, signal.SIGINT: 5}
STATUS = {signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}


def cases():
    """Yield each method with one of the signals, and with the others for the nightly tests."""
    for i, method in enumerate(METHODS):
        for j, number in enumerate(SIGNALS):
            marks = [] if i % len(SIGNALS) == j else [pytest.mark.nightly]
            yield pytest.param(method, number, marks=marks, id=f"{method}-{number.name}")


def write_suite(folder, method, seeds=(0,)):
    """Write the suite of a method into an empty folder."""
    folder.mkdir()
    (folder / "suite.yaml").write_text(SUITE.format(method=method, seeds=list(seeds)))


def command(*options):
    # Checkpoints of epochs alone, so that any other one is the doing of the stop.
    return [NLBENCH, "run", "suite.yaml", "--out", "store", "--checkpoint-seconds", "0", *options]


def start(folder, *options):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*options), cwd=folder, **pipes)


def finish(folder, *options):
    """Let the command continue to its end, and return what it printed on standard error."""
    done = subprocess.run(
        command(*options), cwd=folder, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def results(folder):
    """Return everything that must not depend on when the runs of a folder were stopped."""
    store = Store(folder / "store")
    found = {}
    for key in store.run_keys():
        record = store.read(key)
        assert record.status == "done", record.error_message
        found[key] = record.metrics, record.method, history(store, key), predictions(store, key)
    return found


def wait_for(process, seen, seconds=240):
    deadline = time.monotonic() + seconds
    while not seen() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert seen()
    assert process.poll() is None


def stop(process, number):
    """Send a signal. Return the seconds until the end, and what was printed on standard error."""
    began = time.monotonic()
    process.send_signal(number)
    err = process.communicate(timeout=120)[1]
    return time.monotonic() - began, err


def checkpoints(folder):
    return list(folder.glob("store/runs/*/checkpoint.pt"))


def stop_when_saved(tmp_path, number, method, *options, seeds=(0,), pause=0.0):
    """Start a sweep, and send it a signal when each of its runs has a checkpoint.

    Begins anew where a run has ended before: on a busy machine this process may wake late.

    Args:
        pause: seconds between the last checkpoint and the signal.
    Returns: the folder, the exit status, the seconds from the signal to the end, and what was
        printed on standard error.
    """
    for attempt in range(5):
        folder = tmp_path / f"stopped-{attempt}"
        write_suite(folder, method, seeds)
        with start(folder, *options) as process:
            deadline = time.monotonic() + 240
            while len(checkpoints(folder)) < len(seeds) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(pause / 2**attempt)
            seconds, err = stop(process, number)
        if not list(folder.glob("store/runs/*/record.json")):
            return folder, process.returncode, seconds, err
    raise AssertionError("each time a run had ended before the signal")


class Table:
    """Prints a line for each stop, as soon as it is known."""

    def __init__(self):
        print("\n| method | stopped by | seconds | status | continues in | same result |")
        print("| --- | --- | ---: | ---: | --- | --- |", flush=True)

    def add(self, *cells):
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


@pytest.fixture(scope="module")
def table():
    return Table()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function that gives the results of an undisturbed run of a method."""
    known = {}

    def train(method):
        if method not in known:
            folder = tmp_path_factory.mktemp("whole") / method
            write_suite(folder, method)
            finish(folder)
            known[method] = results(folder)
        return known[method]

    return train


def place_of(err):
    """Return where the run goes on, as the command says it."""
    (line,) = [line for line in err.splitlines() if "continues in epoch" in line]
    return line.partition("continues in ")[2]


@pytest.mark.parametrize(("method", "number"), list(cases()))
def test_a_signal_within_an_epoch_loses_nothing(tmp_path, whole, table, method, number):
    pause = random.Random(f"{method} {number}").uniform(0, 0.5)
    folder, status, seconds, err = stop_when_saved(tmp_path, number, method, pause=pause)
    place = place_of(err)

    assert status == STATUS[number]
    assert seconds < SECONDS[number]
    finish(folder)
    same = results(folder) == whole(method)
    table.add(method, number.name, f"{seconds:.1f}", status, place, same)
    assert same


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_helper_network_trains(tmp_path, whole, table, number):
    folder = tmp_path / "stopped"
    write_suite(folder, "forward")
    process = start(folder)
    wait_for(process, lambda: list(folder.glob("store/fits/*.going.pt")))
    seconds, _ = stop(process, number)

    assert process.returncode == STATUS[number]
    assert seconds < SECONDS[number]
    assert list(folder.glob("store/fits/*.going.pt"))
    assert not list(folder.glob("store/runs/*/checkpoint.pt"))
    finish(folder)
    same = results(folder) == whole("forward")
    name = "forward, its helper network"
    table.add(name, number.name, f"{seconds:.1f}", process.returncode, "its own epoch", same)
    assert same
    assert not list(folder.glob("store/fits/*.going.pt"))


SLEEPS = """
    import time

    class Sleeps(Method):
        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)

        def training_step(self, run, batch):
            if run.step == 100:
                (Path(__file__).parent / "asleep").touch()
                time.sleep(60)
            return super().training_step(run, batch)
"""


def test_a_step_that_does_not_end_in_time_loses_its_epoch_alone(tmp_path):
    folder = tmp_path / "stopped"
    write_suite(folder, "sleeps")
    method_file(folder / "methods", "sleeps", SLEEPS)
    process = start(folder, "--methods-dir", "methods", "--checkpoint-seconds", "3600")
    wait_for(process, lambda: (folder / "methods/asleep").exists())
    seconds, _ = stop(process, signal.SIGTERM)

    assert process.returncode == 143
    assert seconds < 10
    # The first epoch has 88 steps.
    (path,) = folder.glob("store/runs/*/checkpoint.pt")
    saved = torch.load(path, weights_only=True)
    assert len(saved["history"]) == 1
    assert saved["within"] is None


def test_both_of_two_runs_stop(tmp_path):
    folder, status, seconds, err = stop_when_saved(
        tmp_path, signal.SIGTERM, "ce", "--jobs", "2", seeds=(0, 1)
    )
    assert status == 143
    assert seconds < 10
    assert err.count("continues in epoch") == 2
    other = tmp_path / "whole"
    write_suite(other, "ce", seeds=(0, 1))
    finish(folder)
    finish(other)
    assert results(folder) == results(other)


def test_a_process_that_waits_for_another_one_stops_at_once(tmp_path):
    folder = tmp_path / "shared"
    write_suite(folder, "dividemix")
    first = start(folder)
    wait_for(first, lambda: list(folder.glob("store/runs/*/lock")))
    second = start(folder)
    time.sleep(6)
    seconds, err = stop(second, signal.SIGUSR1)

    assert second.returncode == 143
    assert seconds < 3
    assert "continues in epoch" not in err
    assert first.wait(timeout=300) == 0


def test_a_budget_stops_in_time_and_says_that_there_is_more_to_do(tmp_path):
    folder = tmp_path / "stopped"
    write_suite(folder, "dividemix", seeds=range(3))
    statuses = []
    budget = 15
    for _ in range(40):
        began = time.monotonic()
        process = start(folder, "--budget", f"{budget}s")
        err = process.communicate(timeout=300)[1]
        # The tests' own machine may be slow to start a process.
        assert time.monotonic() - began < budget + 3
        # It may be so slow that nothing can be trained in that time. Then the message is right.
        if process.returncode == 2 and "give --budget more time" in err and budget < 100:
            budget *= 2
            continue
        statuses.append(process.returncode)
        if process.returncode != 75:
            break
        assert "the time of --budget is over and" in err

    assert statuses[-1] == 0
    assert set(statuses[:-1]) == {75}
    other = tmp_path / "whole"
    write_suite(other, "dividemix", seeds=range(3))
    finish(other, "--jobs", "2")
    assert results(folder) == results(other)
