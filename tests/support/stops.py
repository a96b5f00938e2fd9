"""Train a run in pieces: stopped after some steps, and continued by a new training."""

import sys

import torch

from nlbench.executors.base import Listener, RunOptions
from nlbench.results.store import Store
from nlbench.training.pulse import Stopped
from nlbench.training.run_data import load_data
from nlbench.training.train import train


class Stopper(Listener):
    """Lets a training stop after so many steps, or after an epoch.

    Attributes:
        steps: number of steps that trainings with this listener have taken.
        stopped: (epoch, step) of each stop.
    """

    def __init__(self):
        self.steps = 0
        self.stop_after = sys.maxsize
        self.stop_in_epoch = sys.maxsize
        self.stopped = []

    @property
    def stopping(self):
        # Asked for once after each step, and in other places.
        if sys._getframe(1).f_code.co_name == "after_step":
            self.steps += 1
        return self.steps >= self.stop_after

    def on_epoch(self, spec, epoch, epochs, metrics):
        if epoch >= self.stop_in_epoch:
            self.stop_after = 0

    def on_stopped(self, spec, epoch, epochs, step):
        self.stopped.append((epoch, step))


def options_of(sw, device="cpu", **options):
    """Return the options of a prepared sweep, without checkpoints in time."""
    options = {"checkpoint_seconds": 1e9, **options}
    devices = (torch.device(device),)
    return RunOptions(devices=devices, data_dir=sw.data_dir, methods=sw.methods, **options)


def train_in_pieces(sw, every, listener=None, device="cpu"):
    """Train the only run of a sweep, stopped after each `every` steps. Return its Stopper."""
    (spec,) = sw.specs
    sw.store.require_writable()
    data = load_data(spec, sw.data_dir)
    stopper = listener or Stopper()
    for _ in range(1000):
        stopper.stop_after = stopper.steps + every
        # Another store, as in another process.
        store = Store(sw.store.root, sw.store.warn)
        try:
            train(spec, data, options_of(sw, device=device), store, stopper)
        except Stopped:
            continue
        return stopper
    raise AssertionError("the training does not end")
