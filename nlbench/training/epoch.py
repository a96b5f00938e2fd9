"""The training loop over one epoch."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from nlbench import ops
from nlbench.contract import returned
from nlbench.method import Batch, Method
from nlbench.training.examples import Counter
from nlbench.training.run_state import RunState
from nlbench.training.saver import Saver
from nlbench.training.seeding import seeded
from nlbench.training.step_rules import EpochRules
from nlbench.training.within import EpochPlace

Item = TypeVar("Item")


def train_epoch(
    state: RunState,
    method: Method,
    epoch: int,
    counters: Sequence[Counter] = (),
    saver: Saver | None = None,
    take: Callable[[tuple[object, ...]], None] | None = None,
) -> float:
    """Train one epoch by the method's own plan, and return the mean loss of its steps.

    Changes the networks, optimisers and `step` of `state`, and the method's state. If a loss was
    not finite, `state.bad_step` is set.

    Args:
        counters: look at the logits that training steps return.
        saver: writes checkpoints; the epoch goes on from one that was written within it.
        take: takes a step on an item, in another way than `take_step` does.
    Raises: whatever the method raises, MethodError for a hook that returns something else than it
        must and for a training past `run.backward_step`, TypeError for a step that returns logits
        of no Batch, and what `Pulse.step` and `saver` raise.
    """
    state.begin_epoch(epoch)
    state.pulse.begin_epoch(epoch, state.task.steps_per_epoch)
    with seeded(state.seed, "epoch", epoch):
        method.train()
        for network in state.networks:
            network.train()

        rules = EpochRules(state)
        # An item is a Batch, or a tuple of what the method's step takes.
        method.on_epoch_start(state, epoch)
        state.settle("on_epoch_start")
        plan = returned.plan_of(method.batches(state, epoch))
        items = drawn_ahead(iter(plan), state.images.ahead)
        place = EpochPlace(state, method, counters, items)
        take = take or functools.partial(take_step, state, method, counters)
        if saver is not None:
            saver.go_on(place)
        for item in items:
            arguments = item if isinstance(item, tuple) else (item,)
            take(arguments)
            state.step += 1
            place.stepped(arguments)
            state.pulse.step(place.done)
            if saver is not None:
                saver.after_step(place)
        if saver is not None:
            saver.after_steps(place)
        state.settle("a training step")
        method.on_epoch_end(state, epoch)
        state.settle("on_epoch_end")
        rules.check(method)

    # Kernels on a GPU mark labels and indices out of range on the device. Looking at the mark once
    # per epoch does not make steps wait.
    ops.check_faults(state.task.device)
    return state.take_loss()


def take_step(
    state: RunState, method: Method, counters: Sequence[Counter], arguments: tuple[object, ...]
) -> None:
    """Take a training step on an item of the plan, and count what it returns.

    Raises: as `train_epoch`.
    """
    result = method.training_step(state, *arguments)
    if result is not None and counters:
        batch = _first_batch(arguments)
        logits = returned.step_logits(result, len(batch), state.task.num_classes)
        for counter in counters:
            counter.add(logits.detach(), batch)


def drawn_ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """Yield the items in their order, but draw each of them `count` items before it is yielded.

    Drawing a batch of image files starts to decode them, so they are ready when their step begins.
    """
    drawn: collections.deque[Item] = collections.deque()
    for item in items:
        drawn.append(item)
        if len(drawn) > count:
            yield drawn.popleft()
    yield from drawn


def _first_batch(item: tuple[object, ...]) -> Batch:
    for part in item:
        if isinstance(part, Batch):
            return part
    raise TypeError(
        "training_step returned logits, but its item holds no Batch they could belong to: "
        "return None"
    )
