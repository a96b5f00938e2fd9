"""What a method and its networks hold at one moment, as fingerprints by path."""

from __future__ import annotations

import collections
import functools
import hashlib
import random
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlbench.method import Batch, Method, Run, Task

# Path of a value, for example "self.targets", -> its fingerprint.
Snapshot = dict[str, str]

# What every nn.Module holds besides its parameters, buffers and modules.
_OF_EACH_MODULE = {*vars(nn.Module()), "_backward_hooks", "_forward_hooks_with_kwargs"}

_GENERATORS = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
_LEAVES = Tensor | np.ndarray | np.generic | bool | int | float | str | bytes
_CONTAINERS = Mapping | list | tuple | set | collections.deque | nn.Module
_FUNCTIONS = types.FunctionType | types.MethodType | types.BuiltinFunctionType | functools.partial

# Objects of nlbench, classes, modules and functions are not looked into.
_CLOSED = Task | Run | Batch | type | types.ModuleType | _FUNCTIONS


# ---- Looking into values ------------------------------------------------------------------------


def leaves(value: Any, path: str, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) of all tensors, arrays, numbers, texts and generators within `value`."""
    seen = set() if seen is None else seen
    if value is None or isinstance(value, _LEAVES):
        yield path, value
        return
    if isinstance(value, _CLOSED) or id(value) in seen:
        return

    # An object that holds itself would otherwise never end.
    seen.add(id(value))
    if isinstance(value, _GENERATORS):
        yield path, _place(value)
    elif isinstance(value, set | frozenset):
        # The order of a set of texts is another one in each process.
        yield path, repr(sorted(map(repr, value)))
    else:
        for name, part in _parts(value, path):
            yield from leaves(part, name, seen)


def _place(generator: Any) -> Any:
    """Return the state of a random generator."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return repr(generator.bit_generator.state)
    if isinstance(generator, random.Random):
        return repr(generator.getstate())
    return repr(generator.get_state())


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, part) of the parts of a container or an object."""
    if isinstance(value, torch.optim.Optimizer):
        yield path, value.state_dict()
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield f"{path}[{key!r}]", part
    elif isinstance(value, list | tuple | collections.deque):
        for i, part in enumerate(value):
            yield f"{path}[{i}]", part
    elif isinstance(value, nn.Module):
        held = registered(value)
        for name, part in vars(value).items():
            if name not in _OF_EACH_MODULE:
                held[name] = part
        for name, part in held.items():
            yield f"{path}.{name}", part
    elif hasattr(value, "__dict__"):
        for name, part in vars(value).items():
            yield f"{path}.{name}", part


def registered(module: nn.Module) -> dict[str, Tensor | nn.Module]:
    """Return a module's own parameters, buffers and modules by name."""
    return {
        **dict(module.named_parameters(recurse=False, remove_duplicate=False)),
        **dict(module.named_buffers(recurse=False, remove_duplicate=False)),
        **dict(module.named_children()),
    }


# ---- Fingerprints -------------------------------------------------------------------------------


def fingerprint(leaf: Any) -> str:
    """Return a text that is equal for equal leaves; for numbers and text it is their repr."""
    if isinstance(leaf, Tensor):
        leaf = leaf.detach().cpu()
        # NumPy has no bfloat16.
        leaf = leaf.float().numpy() if leaf.dtype == torch.bfloat16 else leaf.numpy()
    if not isinstance(leaf, np.ndarray | np.generic):
        return repr(leaf)

    # Messages show single values, so these are not hashed.
    array = np.ascontiguousarray(leaf)
    if array.size == 1:
        return repr(array.item())
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def is_short(text: str) -> bool:
    """Return whether a fingerprint is a value that a message can show."""
    return len(text) < 30


# ---- Snapshots ----------------------------------------------------------------------------------


def take(run: Run, method: Method) -> Snapshot:
    """Return the fingerprints of everything that the method and the run's networks hold."""
    named: dict[str, Any] = {"self": method}
    for i, network in enumerate(run.networks):
        named[f"run.networks[{i}]"] = network

    # nlbench counts the forward passes of a network in its `passes`.
    held = _fingerprints(named)
    counts = re.compile(r"run\.networks\[\d+\]\.passes\..*")
    return {path: text for path, text in held.items() if not counts.fullmatch(path)}


def take_state(networks: list[dict[str, Any]], method: dict[str, Any]) -> Snapshot:
    """Return the fingerprints of what a checkpoint holds: state dicts of networks and method."""
    named = {}
    for i, state in enumerate(networks):
        for name, value in state.items():
            named[f"run.networks[{i}].{name}"] = value

    for name, value in method.items():
        named[f"self.{name}"] = value
    return _fingerprints(named)


def take_shared(cls: type[Method], module: types.ModuleType) -> Snapshot:
    """Return the fingerprints of what a method's class, its module and the classes in it hold.

    All methods of the process share these values, and no checkpoint holds them.
    """
    # Classes of the module, then the method's own bases from the most general one on: what a class
    # sets hides what its parent sets.
    owners = []
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__:
            owners.append(value)
    below = cls.__mro__.index(Method) - 1
    owners += cls.__mro__[below::-1]

    held = {}
    for name, value in vars(module).items():
        if not name.startswith("__") and _is_data(value, module):
            held[name] = value
    for owner in owners:
        for name, value in vars(owner).items():
            if not name.startswith(("__", "_abc_")) and _is_data(value, module):
                held[f"{owner.__name__}.{name}"] = value
    return _fingerprints(held)


def _is_data(value: Any, module: types.ModuleType) -> bool:
    """Return whether the state of a shared value is compared.

    Objects of other modules are left out, because they may hold anything.
    """
    if isinstance(value, _LEAVES | _GENERATORS | _CONTAINERS):
        return True
    return type(value).__module__ == module.__name__


def _fingerprints(values: Mapping[str, Any]) -> Snapshot:
    found = {}
    for root, value in values.items():
        for path, leaf in leaves(value, root):
            found[path] = fingerprint(leaf)
    return found


def unlike(one: Snapshot, other: Snapshot) -> list[str]:
    """Return the paths whose fingerprints differ, or that only one of the snapshots has."""
    return [path for path in {**one, **other} if one.get(path) != other.get(path)]
