"""Epoch."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

from nlbench import ops
from nlbench.method import Batch, Method, Run
from nlbench.training import evaluate
from nlbench.training.seeding import seeded


def train_epoch(run: Run, method: Method, epoch: int, seed: int, memorisation: evaluate.Memorisation | None) -> float:
    """One epoch of the method's own plan. Returns the mean loss of its steps."""
    run._begin_epoch(epoch)
    with seeded(seed, "epoch", epoch):
        method.train()
        for network in run.networks:
            network.train()
        method.on_epoch_start(run, epoch)
        for item in drawn_ahead(method.batches(run, epoch), run._images.ahead):
            item = item if isinstance(item, tuple) else (item,)
            logits = method.training_step(run, *item)
            if logits is not None and memorisation is not None:
                memorisation.add(logits.detach(), _first_batch(item))
            run.step += 1
        method.on_epoch_end(run, epoch)
    ops.check_faults(run.task.device)
    return run._take_loss()


def drawn_ahead(items: Iterator[Any], count: int) -> Iterator[Any]:
    """The same items, each drawn `count` items before it is given: what it must wait for has begun by then."""
    drawn: collections.deque[Any] = collections.deque()
    for item in items:
        drawn.append(item)
        if len(drawn) > count:
            yield drawn.popleft()
    yield from drawn


def _first_batch(item: tuple[Any, ...]) -> Batch:
    for part in item:
        if isinstance(part, Batch):
            return part
    raise TypeError("training_step returned logits, but its item holds no Batch they could belong to: return None")
