"""The steps of a training are reported, and a training that is to stop stops."""

import pytest
from clocks import Clock

from nlbench.training import pulse
from nlbench.training.context import At, Listener
from nlbench.training.pulse import Pulse, Stopped


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(pulse, "time", made)
    return made


def test_steps_are_reported_at_most_twice_a_second(clock):
    seen = []
    made = Pulse("run", seen.append, epochs=3)
    made.begin_epoch(1, 40)
    for step in range(1, 41):
        clock.now += 0.125
        made.step(step)
    assert seen[0] == At("run", 1, 3, 1, 40)
    # Five seconds.
    assert len(seen) == 10


def test_a_run_that_is_to_stop_ends_an_epoch_that_is_nearly_done(clock):
    listener = Listener()
    listener.stopping = True
    made = Pulse(listener=listener)
    made.begin_epoch(0, 100)
    # 96 steps took 96 seconds, so four more seconds are left.
    clock.now += 96
    made.step(96)

    made.begin_epoch(1, 100)
    clock.now += 50
    with pytest.raises(Stopped):
        made.step(50)


def test_predicting_many_images_is_a_sign_of_life(clock):
    seen = []
    made = Pulse("run", seen.append, epochs=3)
    pulse.predicted(500, 10_000)
    with pulse.current(made):
        for done in range(500, 10_500, 500):
            clock.now += 0.25
            pulse.predicted(done, 10_000)
    pulse.predicted(500, 10_000)
    assert len(seen) == 10
    assert seen[0] == At("predicting", 0, 3, 500, 10_000)


def test_an_epoch_without_end_is_refused(clock):
    made = Pulse()
    made.begin_epoch(0, 300)
    clock.now += 10
    made.step(30_000)
    clock.now += 10
    with pytest.raises(RuntimeError, match="has yielded 30,001 batches in one epoch"):
        made.step(30_001)
