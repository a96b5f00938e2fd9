"""Loggers for tests that keep, raise or hang, and runs to log without any training."""

import threading

from nlbench.results.record import RunRecord
from nlbench.watching import WatchedRun


def run_of(key="0123456789abcdef", row="elr", seed=0, **values):
    """Return a run to log."""
    config = {"method": "elr", "params": {"lam": 3.0}, "noise": {"kind": "symmetric", "rate": 0.4}}
    config |= {"protocol": {"epochs": 4, "lr": 0.1}, "seed": seed}
    facts = {"suite": "two", "row": row, "method": "elr", "dataset": "digits"}
    facts |= {"condition": "Digits symmetric 0.4", "protocol": "digits", "epochs": 4}
    return WatchedRun(key=key, seed=seed, config=config, **{**facts, **values})


def metrics_of(epoch):
    """Return the metrics of an epoch, of which one is not known."""
    return {"epoch": epoch, "loss": 2.0 - epoch / 4, "test_accuracy": 0.5, "val_accuracy": None}


def record_of(key="0123456789abcdef", status="done", **values):
    """Return the record of a run."""
    facts = {"spec": {"method": "elr", "seed": 0}, "noise": {}, "timing": {}, "environment": {}}
    facts |= {"method": {}, "code": "", "metrics": {"last": 0.75, "best": 0.8}, "error": None}
    return RunRecord(key=key, status=status, **{**facts, **values})


class Keeper:
    """Keeps what it is told.

    Args:
        known: the epochs that it says it has already.
    """

    def __init__(self, known=()):
        self.told = []
        self.known = known

    def begin(self, run, fresh):
        self.told.append(("begin", run.key, fresh))
        return self.known

    def epoch(self, run, epoch, metrics):
        self.told.append(("epoch", run.key, epoch))

    def ended(self, run, record):
        self.told.append(("ended", run.key, record.status))

    def close(self):
        self.told.append(("close",))

    def epochs(self, key):
        """Return the epochs that it was told of a run."""
        return [told[2] for told in self.told if told[:2] == ("epoch", key)]


class Raising(Keeper):
    """Raises in each epoch."""

    def epoch(self, run, epoch, metrics):
        super().epoch(run, epoch, metrics)
        raise OSError("No space left\non device")


class Hanging(Keeper):
    """Does not return from its first epoch."""

    def __init__(self):
        super().__init__()
        self.free = threading.Event()

    def epoch(self, run, epoch, metrics):
        super().epoch(run, epoch, metrics)
        self.free.wait()
