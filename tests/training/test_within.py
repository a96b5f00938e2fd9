"""A training that is stopped within an epoch ends bit for bit as one that was not."""

import pytest
from stops import train_in_pieces
from sweeps import outcome
from sweeps import sweep as sweep_in

from nlbench import registry

SHIPPED = [
    name
    for name, file in registry.method_files().items()
    if file.module.startswith("nlbench.methods.")
]
QUICK = ("ce", "mixup", "dividemix")


def sweep(out, methods, **options):
    """Return a prepared sweep of short runs: 200 examples, 7 steps in each of 4 epochs."""
    return sweep_in(out, methods, **{"subset": 200, "batch_size": 32, "epochs": 4, **options})


def steps_of(sw):
    """Train the run of a sweep without a stop, and return the number of its steps."""
    counted = train_in_pieces(sw, every=10**9)
    assert counted.stopped == []
    return counted.steps


def both(folder, methods, every, **options):
    """Return a run that was trained in one piece, one in pieces, and what the latter has done."""
    whole = sweep(folder / "whole", methods, **options)
    steps = steps_of(whole)
    pieces = sweep(folder / "pieces", methods, **options)
    stopper = train_in_pieces(pieces, every)
    return whole, pieces, steps, stopper


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.methods) for name in SHIPPED],
)
def test_a_run_that_stops_every_five_steps_equals_one_that_does_not(tmp_path, name):
    whole, pieces, steps, stopper = both(tmp_path, {name: {}}, every=5)

    assert outcome(pieces) == outcome(whole)
    # No step was taken twice, so each resume went on within its epoch.
    assert stopper.steps == steps
    assert len({step for _, step in stopper.stopped}) > 2
