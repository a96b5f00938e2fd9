"""Whole training steps as one CUDA graph: views, passes, loss, memory, optimiser and counts.

The default training step is captured as it is, so that its numbers are the same. The graph works on
memory that stays where it is: before each replay the index of the batch is copied into it, and at
the beginning of an epoch that epoch's augmentation draws. What Python does in a step besides giving
work to the GPU, it does beside the replay: it counts the step, and keeps its loss.

A step is taken as it is, without a capture, where one of these holds:
- the method has its own training step or plan, or does not say that its loss is `capturable`;
- it has several networks, or trains something besides its network;
- the images are files, or a hook looks at the network;
- the batch is the last, shorter one of its epoch.

Before a capture some steps are rehearsed, in which libraries choose their kernels. Then everything
that a step relies on is compared: the memory of all tensors, and all values of the method that
Python reads, such as the weight of a term. If an epoch begins with others, its step is captured
anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nlbench.errors import MethodError
from nlbench.method import Batch, Method
from nlbench.training.capture import Recorder, Step, layout_of
from nlbench.training.epoch import take_step
from nlbench.training.examples import Counter
from nlbench.training.images import Images
from nlbench.training.network import Network, relied_on
from nlbench.training.run_state import RunState

# Steps between which nothing has changed that a step relies on, before the capture. The first step
# of a training allocates the optimiser's momentum, so there may be one more.
REHEARSALS = 3
# If something still changes after so many steps of an epoch, it changes in every step.
_MOST_REHEARSALS = 12

# The networks' optimiser, as `setup` registers it.
_OWN = "network0"


def whole_steps(
    state: RunState, method: Method, counters: Sequence[Counter], recorder: Recorder
) -> WholeSteps | None:
    """Return what takes the steps of a run whole, or None if the method or the images forbid it.

    Call it before the first step.
    """
    if not _is_capturable(method) or not isinstance(state.images, Images):
        return None
    if len(state.networks) != 1 or not isinstance(state.networks[0], Network):
        return None
    return WholeSteps(state, method, counters, recorder)


def _is_capturable(method: Method) -> bool:
    """Return whether a method has the default steps, and says of its loss that it is capturable."""
    default = {"training_step", "batches"}
    losses = {"loss", "loss_and_grad", "capturable"}
    if (default | losses) & vars(method).keys():
        return False

    # From the method's class upwards. A class that overrides the loss has to say it again.
    for cls in type(method).__mro__:
        if cls is Method or default & vars(cls).keys():
            return False
        if losses & vars(cls).keys():
            return bool(vars(cls).get("capturable", False)) and _has_default_steps(cls)
    return False


def _has_default_steps(cls: type[Method]) -> bool:
    return cls.training_step is Method.training_step and cls.batches is Method.batches


class WholeSteps:
    """Takes the steps of a run, from its first one: rehearsed, recorded, and then replayed.

    Attributes:
        captures, replays: how many there were.
    """

    def __init__(
        self, state: RunState, method: Method, counters: Sequence[Counter], recorder: Recorder
    ):
        self._state, self._method, self._counters = state, method, counters
        self._recorder = recorder
        network = state.networks[0]
        assert isinstance(network, Network)
        self._network = network
        self.captures = self.replays = 0

        # The memory that the graph reads: which examples, and how they are augmented.
        self._index = state.task.labels.new_zeros(state.task.batch_size)
        self._draws = torch.empty(0)

        self._epoch = -1
        self._relied_on: tuple[object, ...] = ()
        self._rates: tuple[float, ...] | None = None
        self._alike = self._rehearsed = 0
        self._recorded: _Recorded | None = None
        # What was compared last. Kept, so that no other object gets its id.
        self._memory: object = None

    def take(self, arguments: tuple[object, ...]) -> None:
        """Take a step on an item of the default plan. Raises: as `train_epoch`."""
        state, batch = self._state, arguments[0]
        if self._epoch != state.epoch:
            self._begin_epoch()
        whole = isinstance(batch, Batch) and len(batch) == state.task.batch_size
        if not (whole and self._relied_on) or self._rehearsed >= _MOST_REHEARSALS:
            take_step(state, self._method, self._counters, arguments)
            return

        assert isinstance(batch, Batch)
        self._index.copy_(batch.index)
        if self._recorded is not None:
            self._recorded.take()
            self.replays += 1
        elif self._alike >= REHEARSALS:
            self._recorded = _Recorded(
                state, self._network, self._recorder, self._step, self._rates
            )
            self.captures += 1
        else:
            self._rehearse()

    def _begin_epoch(self) -> None:
        """Look whether a recording is still that of this epoch's step."""
        state = self._state
        self._epoch, self._rehearsed = state.epoch, 0
        # The rates are known only where the network has its own optimiser alone. torch records no
        # AdamW but one that is made for it, which then warns of each step that is not recorded.
        own = state.optimisers.get(_OWN)
        self._rates = state.rates_of_epoch(_OWN) if isinstance(own, torch.optim.SGD) else None

        drawn = state.draws(0)
        if self._draws.shape == drawn.shape and self._draws.dtype == drawn.dtype:
            self._draws.copy_(drawn)
        else:
            self._draws = drawn.clone()

        found = self._look()
        self._network.join_whole_step(bool(found))
        if found != self._relied_on:
            # Free the memory of the old graph before the capture of the new one.
            self._recorded, self._alike = None, 0
        self._relied_on = found

    def _rehearse(self) -> None:
        """Take a step, and look whether it has changed something that steps rely on."""
        self._recorder.rehearse(self._step)
        found = self._look()
        self._alike = self._alike + 1 if found == self._relied_on else 0
        self._relied_on = found

        self._rehearsed += 1
        if self._rehearsed == _MOST_REHEARSALS:
            self._network.join_whole_step(False)

    def _step(self) -> None:
        """Take the step of the examples at `_index`."""
        images, labels = self._state.images, self._state.task.labels
        batch = Batch(
            lambda: images.augmented(self._index, self._draws),
            labels[self._index],
            self._index,
            self._refuse_view,
        )
        take_step(self._state, self._method, self._counters, (batch,))

    def _refuse_view(self, index: Tensor, k: int) -> Tensor:
        raise MethodError(
            f"{type(self._method).__name__} says that it is capturable, and its loss looks at "
            "another view than batch.images",
            "remove `capturable = True` from the class",
        )

    def _look(self) -> tuple[object, ...]:
        """Return everything that a recorded step relies on; empty if it must not be recorded."""
        state, method = self._state, self._method
        if state.optimisers.keys() != {_OWN} or any(p.requires_grad for p in method.parameters()):
            return ()
        of_network = relied_on(self._network)
        if not of_network:
            return ()

        optimiser = state.optimisers[_OWN]
        settings, momenta = [], []
        for group in optimiser.param_groups:
            # The rates are compared by the schedule, and set before each step.
            settings.append({key: group[key] for key in group if key != "lr"})
            momenta += [optimiser.state.get(weight, {}) for weight in group["params"]]

        known = vars(nn.Module()).keys() | {"task", "training"}
        values = {name: value for name, value in vars(method).items() if name not in known}
        images = state.images
        assert isinstance(images, Images)
        found: list[object] = [
            *(of_network, self._rates, id(optimiser), id(self._network.memory)),
            *(settings, momenta, values, dict(method.named_buffers()), method.training),
            *(state.task.labels, images.data, self._draws, self._index),
            [counter.state_dict() for counter in self._counters],
        ]
        self._memory = self._network.memory
        return tuple(_comparable(value) for value in found)


class _Recorded:
    """A recorded step, with what Python does beside its replays.

    Recording takes a step.

    Args:
        rates: the learning rates that the recorded optimiser has. None if they change in the epoch,
            and for another optimiser than SGD: then it is no part of the recording, and is stepped
            after it. torch's fused optimisers would read rates from the device, but rounded to
            float32, which changes the numbers.
    """

    def __init__(
        self,
        state: RunState,
        network: Network,
        recorder: Recorder,
        step: Step,
        rates: tuple[float, ...] | None,
    ):
        self._state, self._rates = state, rates
        images = state.passes.images
        state.put_off = [] if rates is None else None
        try:
            self._replay = recorder.record(step)
        finally:
            state.put_off = None
        self._images = state.passes.images - images
        # The graph works on the memory of the network's passes, which must stay.
        self._memory = network.memory

        # The loss lies in memory that the next replay writes to.
        number, self._loss = state.losses.pop()
        state.losses.append((number, self._loss.clone()))

        # So do the gradients, which a step without a recording replaces by others.
        self._gradients: list[tuple[nn.Parameter, Tensor | None]] = []
        if rates is None:
            self._gradients = [(weight, weight.grad) for weight in network.parameters()]
            state.step_optimisers([_OWN])

    def take(self) -> None:
        """Take the recorded step once more."""
        state = self._state
        self._replay()
        state.passes.images += self._images
        state.losses.append((state.step, self._loss.clone()))

        if self._rates is not None:
            state.count_step(_OWN)
            return
        for weight, gradient in self._gradients:
            weight.grad = gradient
        state.step_optimisers([_OWN])


# ---- What a step relies on ----------------------------------------------------------------------

_PLAIN = (type(None), bool, int, float, str, torch.device, torch.dtype)


def _comparable(value: object) -> object:
    """Return what is equal for two values only if a step can rely on either in the same way.

    A tensor is equal to itself where it lies in the same memory, in the same way. A value that
    cannot be compared equals nothing.
    """
    if isinstance(value, Tensor):
        return layout_of(value)
    if type(value) in _PLAIN:
        return type(value), value
    if isinstance(value, list | tuple):
        return tuple(_comparable(part) for part in value)
    if isinstance(value, Mapping):
        return tuple((key, _comparable(part)) for key, part in value.items())
    return object()
