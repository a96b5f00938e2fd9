"""The state of a training between two steps of an epoch: take it, and go on from it.

A method may keep plain values from step to step within an epoch, and so may its plan. No checkpoint
of an epoch's end has them. To go on within an epoch, the training begins the epoch again from the
state at its beginning, draws the items of the plan without training on them, and then restores
what the steps have changed. It goes on only if everything that can be seen is then as it was.
"""

from __future__ import annotations

import collections
import copy
import io
import random
import re
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlbench import ops
from nlbench.method import Batch, Method
from nlbench.training import held
from nlbench.training.examples import Counter
from nlbench.training.run_state import RunState

# A step that reads the gradients of the step before it. No checkpoint holds these.
_READS_GRADIENTS = re.compile(r"(?<!autograd)\.grad\b(?!\s*\()")

_DATA = (
    *(Tensor, np.ndarray, np.generic, bool, int, float, str, bytes, list, tuple, dict, set),
    *(torch.Generator, np.random.Generator, np.random.RandomState, random.Random, nn.Module),
)


class Unlike(Exception):
    """A state cannot be restored: something is not as it was. The message names it."""


@dataclass
class EpochPlace:
    """An epoch that is being trained.

    Attributes:
        plan: the iterator over the items of the epoch.
        item: the item of the last step, without its batches.
        done: number of steps done.
        ended: whether the plan was found to have no further item.
    """

    state: RunState
    method: Method
    counters: Sequence[Counter]
    plan: Iterator[Any]
    item: tuple[Any, ...] = ()
    done: int = 0
    ended: bool = False

    def stepped(self, arguments: tuple[Any, ...]) -> None:
        """Note that the step of an item is done."""
        self.item = tuple(part for part in arguments if not isinstance(part, Batch))
        self.done += 1

    # ---- Taking a state -------------------------------------------------------------------------

    def take(self) -> dict[str, Any]:
        """Return the state after the last step, on the CPU. Raises held.Unseen."""
        # Marks on a GPU, which no checkpoint holds. An epoch's end looks at them, too.
        ops.check_faults(self.state.task.device)
        if not self.state.settled():
            raise held.Unseen("a setting of the process, which the steps have changed")
        if _reads_gradients(self.method):
            raise held.Unseen("the gradients of the last step, which the method may read")
        # An object of a method may raise anything when it is looked at.
        try:
            taken = on_host(self._parts())
            _require_readable(taken)
        except Exception as error:
            raise held.Unseen(f"{type(error).__name__}: {error}") from error
        return taken

    def _parts(self) -> dict[str, Any]:
        state, method = self.state, self.method
        seen = self._look()
        losses = [loss for _, loss in state.losses]
        return {
            "done": self.done,
            "ended": self.ended,
            **state.state_dict(),
            "method": method.state_dict(),
            "counters": [counter.state_dict() for counter in self.counters],
            "steps_taken": state.steps_taken,
            "loss_steps": [step for step, _ in state.losses],
            "losses": torch.cat(losses) if losses else None,
            "random": _random_state(),
            "texts": seen.texts,
            "values": seen.values,
        }

    def _look(self) -> held.Held:
        state, method = self.state, self.method
        optimisers = state.optimisers.values()
        cleared, restored = set(), _registered([method, *state.networks])
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                cleared |= {id(parameter) for parameter in group["params"]}
            for values in optimiser.state.values():
                restored |= {id(value) for value in values.values()}

        roots = {
            "networks": state.networks,
            "method": method,
            "optimisers": {name: one.state_dict() for name, one in state.optimisers.items()},
            "run": state.unsaved(),
            "shared": _shared(method),
            "item": self.item,
        }
        return held.look(roots, self.plan, cleared=cleared, restored=restored)

    # ---- Going on from one ----------------------------------------------------------------------

    def go_on(self, taken: dict[str, Any]) -> None:
        """Restore a state of `take`. The epoch must have begun as it had begun then.

        Raises: Unlike. Then the training must begin anew, because parts may be restored.
        """
        # A file that somebody made may hold anything.
        try:
            self._skip(taken["done"], taken["ended"])
            self._restore(taken)
            now = self._look().texts
        except Exception as error:
            raise Unlike(f"{type(error).__name__}: {error}") from error

        then = taken["texts"]
        for path in {**then, **now}:
            if then.get(path) != now.get(path):
                raise Unlike(path)

    def _skip(self, count: int, ended: bool) -> None:
        """Draw `count` items without training on them, and then find the end if `ended`."""
        state, step = self.state, self.state.step
        state.skipping = True
        try:
            for _ in range(count):
                item = next(self.plan)
                self.stepped(item if isinstance(item, tuple) else (item,))
                state.step += 1
            if ended and next(self.plan, None) is not None:
                raise ValueError("the plan has further items")
        finally:
            state.skipping, state.step = False, step

    def _restore(self, taken: dict[str, Any]) -> None:
        state = self.state
        self.method.load_state_dict(taken["method"])
        state.load_state_dict(taken)
        state.steps_taken = dict(taken["steps_taken"])
        losses = [] if taken["losses"] is None else taken["losses"].split(1)
        device = state.task.device
        for step, loss in zip(taken["loss_steps"], losses, strict=True):
            state.losses.append((step, loss.to(device)))
        for counter, saved in zip(self.counters, taken["counters"], strict=True):
            counter.load_state_dict(saved)
        self._look().put_back(taken["texts"], taken["values"])
        _set_random_state(taken["random"])


def _registered(modules: Sequence[nn.Module]) -> set[int]:
    """Return the ids of the parameters and buffers that the state of the modules holds."""
    found = set()
    for root in modules:
        for module in root.modules():
            found |= {id(value) for value in module._parameters.values()}
            for name, value in module._buffers.items():
                if name not in module._non_persistent_buffers_set:
                    found.add(id(value))
    return found


def _shared(method: Method) -> dict[str, Any]:
    """Return the data that a method's classes, its module and those beside it hold."""
    cls = type(method)
    owners: list[Any] = [*_modules_of(cls), *cls.__mro__[: cls.__mro__.index(Method)]]
    found = {}
    for owner in owners:
        module = owner.__name__ if isinstance(owner, types.ModuleType) else owner.__module__
        for name, value in vars(owner).items():
            # The default values of a function may hold something, too.
            own = module in (type(value).__module__, getattr(value, "__module__", ""))
            is_data = isinstance(value, _DATA) or (own and not isinstance(value, type))
            if is_data and not name.startswith(("__", "_abc_")):
                found[f"{owner.__name__}.{name}"] = value
    return found


def _modules_of(cls: type[Method]) -> list[types.ModuleType]:
    """Return the module of a method and the modules that lie in the same folder."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return []
    # nlbench's own modules keep no state of a run. The methods that come with it import no other.
    if module.__name__.startswith("nlbench."):
        return [module]
    beside = []
    for name, other in sorted(sys.modules.items()):
        other_file = getattr(other, "__file__", None)
        if other_file and Path(other_file).parent == Path(file).parent:
            beside.append(sys.modules[name])
    return beside


def _reads_gradients(method: Method) -> bool:
    module = sys.modules.get(type(method).__module__)
    file = getattr(module, "__file__", None)
    # The method of a helper network is a part of nlbench.
    if file is None or type(method).__module__.startswith("nlbench.training"):
        return False
    try:
        return bool(_READS_GRADIENTS.search(Path(file).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return True


def _require_readable(taken: dict[str, Any]) -> None:
    """Raise held.Unseen for a state that could be written, and not be read again."""
    file = io.BytesIO()
    try:
        torch.save(_without_numbers(taken), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:
        raise held.Unseen(f"a value that no checkpoint can hold, {error}") from None


def _without_numbers(value: Any) -> Any:
    """Return a copy with empty tensors, which says as much about what can be read."""
    if isinstance(value, Tensor):
        return torch.empty(0, dtype=value.dtype)
    if isinstance(value, dict):
        return {name: _without_numbers(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_numbers(part) for part in value)
    return value


# ---- Random generators of the process ------------------------------------------------------------


def _random_state() -> dict[str, Any]:
    return {
        "torch": torch.default_generator.get_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": held.without_arrays(np.random.get_state(legacy=False)),  # noqa: NPY002
        "python": random.getstate(),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.default_generator.set_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(held.with_arrays(state["numpy"]))  # noqa: NPY002
    random.setstate(state["python"])


# ---- Copies --------------------------------------------------------------------------------------


def on_host(value: Any) -> Any:
    """Return a copy of tensors, containers and plain values, with all tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, collections.OrderedDict):
        # The state of a module has the versions of its parts as an attribute.
        state = collections.OrderedDict((name, on_host(part)) for name, part in value.items())
        vars(state).update(vars(value))
        return state
    if isinstance(value, dict):
        return {name: on_host(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(on_host(part) for part in value)
    return copy.deepcopy(value)
