"""Snapshot."""

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

# --- what an object holds ------------------------------------------------------------------------------------------

_MODULE_OWN = {*vars(nn.Module()), "_backward_hooks", "_forward_hooks_with_kwargs"}


_GENERATORS = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
_LEAVES = Tensor | np.ndarray | np.generic | bool | int | float | str | bytes
_DATA = _LEAVES | _GENERATORS | Mapping | list | tuple | set | collections.deque | nn.Module
_FUNCTIONS = types.FunctionType | types.MethodType | types.BuiltinFunctionType | functools.partial


def leaves(value: Any, path: str, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of all tensors, arrays, numbers, texts and generators that can be reached from `value`."""
    seen = set() if seen is None else seen
    if value is None or isinstance(value, _LEAVES):
        yield path, value
        return
    if isinstance(value, Task | Run | Batch | type | types.ModuleType | _FUNCTIONS):
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: list[tuple[str, Any]] = []
    if isinstance(value, torch.Generator):
        yield path, value.get_state()
    elif isinstance(value, np.random.Generator):
        yield path, repr(value.bit_generator.state)
    elif isinstance(value, random.Random | np.random.RandomState):
        yield path, repr(value.getstate() if isinstance(value, random.Random) else value.get_state())
    elif isinstance(value, torch.optim.Optimizer):
        parts = [(path, value.state_dict())]
    elif isinstance(value, Mapping):
        parts = [(f"{path}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, list | tuple | collections.deque):
        parts = [(f"{path}[{i}]", part) for i, part in enumerate(value)]
    elif isinstance(value, set | frozenset):
        yield path, repr(sorted(map(repr, value)))
    elif isinstance(value, nn.Module):
        own = {name: part for name, part in vars(value).items() if name not in _MODULE_OWN}
        parts = [
            (f"{path}.{name}", part)
            for name, part in {**value._parameters, **value._buffers, **value._modules, **own}.items()
        ]
    elif hasattr(value, "__dict__"):
        parts = [(f"{path}.{name}", part) for name, part in vars(value).items()]
    for name, part in parts:
        yield from leaves(part, name, seen)


def shared(cls: type[Method], module: types.ModuleType) -> dict[str, str]:
    """What the method's class, its module and the classes in it hold, by path; no checkpoint does."""
    held = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    inside = [value for value in held.values() if isinstance(value, type) and value.__module__ == module.__name__]
    for owner in [*inside, *cls.__mro__[cls.__mro__.index(Method) - 1 :: -1]]:  # what a class sets hides its parent's
        held |= {f"{owner.__name__}.{k}": v for k, v in vars(owner).items() if not k.startswith(("__", "_abc_"))}
    own = {k: v for k, v in held.items() if isinstance(v, _DATA) or type(v).__module__ == module.__name__}
    return {path: print(leaf) for name, value in own.items() for path, leaf in leaves(value, name)}


def print(leaf: Any) -> str:
    """A fingerprint of a leaf, for numbers and short text the value itself."""
    if isinstance(leaf, Tensor):
        leaf = leaf.detach().cpu().float().numpy() if leaf.dtype == torch.bfloat16 else leaf.detach().cpu().numpy()
    if isinstance(leaf, np.ndarray | np.generic):
        array = np.ascontiguousarray(leaf)
        if array.size == 1:
            return repr(array.item())
        return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    return repr(leaf)


def shot(run: Run, method: Method) -> dict[str, str]:
    """Everything that method and networks hold, by path."""
    held = {path: print(leaf) for path, leaf in leaves(method, "self")}
    for i, network in enumerate(run.networks):
        held |= {path: print(leaf) for path, leaf in leaves(network, f"run.networks[{i}]")}
    return {path: text for path, text in held.items() if not re.fullmatch(r"run\.networks\[\d+\]\.passes\..*", path)}


def copied_state(networks: list[dict[str, Any]], method: dict[str, Any]) -> dict[str, str]:
    """What a checkpoint holds of networks and method, by path."""
    named = [(f"run.networks[{i}].{name}", value) for i, state in enumerate(networks) for name, value in state.items()]
    named += [(f"self.{name}", value) for name, value in method.items()]
    return {path: print(leaf) for root, value in named for path, leaf in leaves(value, root)}
