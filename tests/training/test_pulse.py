"""The steps of a training are reported, and an epoch without end is refused."""

import pytest
from clocks import Clock

from nlbench.training import pulse
from nlbench.training.context import At, Listener
from nlbench.training.pulse import Pulse


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


def test_the_rest_of_an_epoch_is_estimated_from_its_steps(clock):
    made = Pulse()
    made.begin_epoch(0, 100)
    # 96 steps took 96 seconds, so four more seconds are left.
    clock.now += 96
    assert made.seconds_left(96) == 4


def test_a_prediction_asks_whether_to_stop(clock):
    listener = Listener()
    made = Pulse(listener=listener)
    asked = []
    made.stop = lambda: asked.append(True)
    with pulse.current(made):
        pulse.predicted(500, 1000)
        assert asked == []
        listener.stopping = True
        pulse.predicted(1000, 1000)
    assert asked == [True]


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
