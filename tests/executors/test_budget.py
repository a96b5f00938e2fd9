"""Runs are begun while one of their epochs still fits into the time, and stop before its end."""

import math
import time
from types import SimpleNamespace

import pytest
from clocks import Clock

from nlbench.executors import _budget
from nlbench.executors._budget import Budget


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(_budget, "time", made)
    return made


def spec(key, method="ce"):
    return SimpleNamespace(key=key, method=method)


def test_without_a_time_everything_is_begun(clock):
    budget = Budget(math.inf)
    clock.now += 1e9
    assert budget.allows(spec("a"))
    assert not budget.must_stop()


@pytest.mark.parametrize(("seconds", "margin"), [(6 * 3600, 15), (100, 10), (2, 1)])
def test_runs_stop_before_the_end(clock, seconds, margin):
    budget = Budget(clock.now + seconds)
    clock.now += seconds - margin - 0.5
    assert not budget.must_stop()
    clock.now += 0.5
    assert budget.must_stop()
    assert budget.seconds_left() == margin


def test_a_run_is_begun_only_if_its_first_epoch_fits(clock):
    budget = Budget(clock.now + 1000)
    budget.begun(spec("a"))
    # Start, helper network and first epoch.
    clock.now += 100
    budget.note(spec("a"), "on_epoch", (0, 10, {}))
    # Later epochs are shorter, and do not count.
    clock.now += 50
    budget.note(spec("a"), "on_epoch", (1, 10, {}))

    clock.now += 700
    assert budget.allows(spec("b"))
    # The longest time counts for a method that has not been seen.
    assert budget.allows(spec("c", "elr"))
    clock.now += 50
    assert not budget.allows(spec("b"))
    assert not budget.allows(spec("c", "elr"))


def test_each_method_has_its_own_time(clock):
    budget = Budget(clock.now + 1000)
    for key, seconds in (("ce", 10), ("dividemix", 300)):
        budget.begun(spec(key, key))
        clock.now += seconds
        budget.note(spec(key, key), "on_epoch", (0, 10, {}))

    clock.now += 500
    assert budget.allows(spec("b", "ce"))
    assert not budget.allows(spec("b", "dividemix"))


def test_the_first_run_is_begun_however_little_time_there_is(clock):
    budget = Budget(clock.now + 10)
    clock.now += 8.9
    assert budget.allows(spec("a"))


@pytest.mark.parametrize(
    ("hook", "values", "was_of_use"),
    [
        ("on_start", (), False),
        ("on_step", (), False),
        ("on_stopped", (0, 10, 0), False),
        ("on_stopped", (0, 10, 3), True),
        ("on_epoch", (0, 10, {}), True),
        ("on_fit", (0, 10, {}), True),
    ],
)
def test_time_in_which_no_run_gets_further_was_of_no_use(clock, hook, values, was_of_use):
    budget = Budget(clock.now + 10)
    budget.begun(spec("a"))
    budget.note(spec("a"), hook, values)
    assert budget.was_of_use is was_of_use


def test_time_that_was_spent_on_waiting_for_others_is_no_reason_to_give_more(clock):
    budget = Budget(clock.now + 10)
    budget.waited()
    assert budget.was_of_use


def test_another_thread_calls_when_the_time_is_over():
    called = []
    with Budget(time.monotonic() + 1.05).calling(lambda: called.append(True)):
        deadline = time.monotonic() + 5
        while not called and time.monotonic() < deadline:
            time.sleep(0.01)
    assert called == [True]
