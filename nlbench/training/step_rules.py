"""Refuse a training of networks that goes past `run.backward_step`.

An optimiser that nlbench does not know follows no schedule, is in no checkpoint, and its losses are
in no record, so the run would not be what its record says. Nothing here changes a number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from nlbench.errors import MethodError
from nlbench.method import Method
from nlbench.training.run_state import RunState

_ONE_CALL = (
    "leave out zero_grad(), backward() and step(): run.backward_step(loss) does all three; "
    "register another optimiser in prepare with run.optimise(params, factory, name)"
)


@contextlib.contextmanager
def registered_steps_only(state: RunState) -> Iterator[None]:
    """Refuse, within a `with` block, each step of an optimiser outside of `run.backward_step`.

    Optimisers of a method's own that train no network of the run are left alone.

    Raises: MethodError, in the call of the optimiser's `step`.
    """

    def refuse(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if state.stepping:
            return
        for name, registered in state.optimisers.items():
            if optimiser is registered:
                raise MethodError(
                    f"the optimiser {name!r} was stepped outside of run.backward_step",
                    f"call run.backward_step(loss, {name!r}) in place of backward() and step()",
                )
        for i, network in enumerate(state.networks):
            if _trains(optimiser, network):
                kind = type(optimiser).__name__
                raise MethodError(
                    f"an optimiser that is not registered ({kind}) trains run.networks[{i}]",
                    _ONE_CALL,
                )

    handle = register_optimizer_step_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def _trains(optimiser: torch.optim.Optimizer, network: nn.Module) -> bool:
    own = {id(parameter) for parameter in network.parameters()}
    groups = optimiser.param_groups
    return any(id(parameter) in own for group in groups for parameter in group["params"])


class EpochRules:
    """Compare the networks at the end of an epoch with the steps that were taken in it.

    Made at the beginning of the epoch. Reads no value from the device unless a network looks as if
    it was trained past `run.backward_step`.
    """

    def __init__(self, state: RunState):
        self._state = state
        self._sizes = [_size(network) for network in state.networks]
        self._gradients = [_gradients(network) for network in state.networks]

    def check(self, method: Method) -> None:
        """Raise MethodError for an epoch without a step, or with a network trained otherwise."""
        state = self._state
        if not state.steps_taken and method.trains_every_epoch:
            raise MethodError(
                f"epoch {state.epoch} ended without a call of run.backward_step, so nlbench has "
                "trained nothing",
                "call it in each training_step; a method that may leave out whole epochs says so "
                "with the class attribute trains_every_epoch = False",
            )

        for i, network in enumerate(state.networks):
            names = [name for name, own in state.optimisers.items() if _trains(own, network)]
            if any(name in state.steps_taken for name in names):
                continue
            # An average of other networks changes too, without a gradient.
            if self._gradients[i] == _gradients(network) or self._sizes[i].equal(_size(network)):
                continue
            raise MethodError(
                f"run.networks[{i}] was trained in epoch {state.epoch}, in which none of its "
                f"optimisers was stepped ({', '.join(names)})",
                _ONE_CALL,
            )


def _size(network: nn.Module) -> Tensor:
    """Return the norm of a network's weights, 0-d on its device, which any training changes."""
    weights = [weight.detach() for weight in network.parameters()]
    return nn.utils.get_total_norm(weights)


def _gradients(network: nn.Module) -> list[tuple[int, int]]:
    """Return which gradients a network holds, so that new ones can be told from old ones."""
    held = []
    for weight in network.parameters():
        if weight.grad is not None:
            held.append((id(weight.grad), weight.grad._version))
    return held
