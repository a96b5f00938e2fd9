"""What a training holds between two steps: its method, networks and plan, as comparable values.

A training that was stopped within an epoch goes on there only if everything that a later step can
depend on is the same again. So all objects that can be reached from the method, the networks and
the plan of the epoch are walked through, in an order that the same code repeats in another process.
Where something is found whose state cannot be seen, such as an open file, no state is given.
"""

from __future__ import annotations

import collections
import enum
import functools
import gc
import itertools
import operator
import random
import types
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nlbench.method import Batch, Run, Task

# Larger tensors are compared, and not saved a second time.
_MOST_BYTES = 64 << 20

# A value that is compared and not saved.
COMPARED = object()

Put = Callable[[Any], object]


class Unseen(Exception):
    """An object whose state can be neither compared nor saved. The message names it."""


class NotHeld:
    """Base of the objects of nlbench that hold nothing which a later step depends on."""


class Held:
    """The values that were found, by path.

    Attributes:
        texts: what two states are compared by.
        values: what a checkpoint holds of them, as far as it can be put back.
    """

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self._puts: dict[str, Put] = {}

    def add(self, path: str, text: str, value: Any = COMPARED, put: Put | None = None) -> None:
        """Note a value. `put` puts another one in its place."""
        self.texts[path] = text
        if put is not None and value is not COMPARED:
            self.values[path], self._puts[path] = value, put

    def put_back(self, texts: Mapping[str, str], values: Mapping[str, Any]) -> None:
        """Put the values of another state in the places where this one differs from it."""
        for path, value in values.items():
            if path in self._puts and self.texts[path] != texts[path]:
                self._puts[path](value)


def look(
    roots: Mapping[str, object],
    plan: object = None,
    *,
    cleared: Set[int] = frozenset(),
    restored: Set[int] = frozenset(),
) -> Held:
    """Return what can be reached from `roots` and from the plan of an epoch.

    Args:
        roots: by the name that paths begin with. They should be in the same order each time.
        plan: an iterator. Its variables and what it goes through are walked through as well: its
            position is not seen, because it is decided by the number of its items.
        cleared: ids of the tensors whose gradients are cleared before they are used again.
        restored: ids of the tensors that are saved elsewhere, and so only compared.
    Raises: Unseen.
    """
    walk = _Walk(cleared, restored)
    for name, value in roots.items():
        walk.add(value, name, None)
    if plan is not None:
        walk.in_plan = True
        walk.add(plan, "plan", None)
    return walk.held


# ---- Kinds of values -----------------------------------------------------------------------------

# Values that do not change and that a checkpoint can hold, and others that do not change.
_PLAIN = (type(None), bool, int, float, str, bytes)
_CONSTANT = (
    *(complex, range, slice, type(...), enum.Enum, PurePath, np.generic, np.dtype),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    *(type, types.ModuleType, types.CodeType, types.GenericAlias),
    *(types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType),
)

# nlbench restores what these hold, or they never change.
_LEFT_OUT = (Task, Run, NotHeld, RemovableHandle, types.FrameType)

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)

# Iterators whose content the garbage collector lists.
_ITERATORS: tuple[Any, ...] = (
    types.GeneratorType,
    *(zip, map, filter, enumerate, reversed),
    *(itertools.chain, itertools.cycle, itertools.islice, itertools.repeat, itertools.count),
    *(itertools.accumulate, itertools.starmap, itertools.zip_longest, itertools.product),
    *(type(iter([])), type(iter(())), type(iter(range(0))), type(iter(range(2**70)))),
    *(type(iter({})), type(iter({}.values())), type(iter({}.items()))),
)

# Of these the first object is what they go through, and another one is their last result.
_WITH_A_RESULT = (zip, enumerate, itertools.zip_longest, itertools.product)

# What every module holds besides its parameters, buffers and modules.
_OF_EACH_MODULE = frozenset(vars(nn.Module()))
_REGISTERED = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")

# Modules in C whose objects may have a state that Python does not see.
_IN_C = ("_", "torch._C", "builtins")


class _Walk:
    """Walks through objects, each of them once."""

    def __init__(self, cleared: Set[int], restored: Set[int]):
        self.held = Held()
        self.in_plan = False
        self._cleared, self._restored = cleared, restored
        # Objects and memories by identity. So two names of one object are no two objects.
        self._numbers: dict[object, int] = {}
        # An object that is freed could give its identity to another one.
        self._kept: list[object] = []

    def add(self, value: Any, path: str, put: Put | None) -> None:
        """Walk through a value, which `put` can replace."""
        # Whether two tuples of plain values are one object changes nothing. The groups of AdamW
        # share their betas, until a checkpoint gives each its own.
        is_plain_tuple = type(value) is tuple and all(type(part) in _PLAIN for part in value)
        if type(value) in _PLAIN or is_plain_tuple:
            self.held.add(path, repr(value), value, put)
        elif isinstance(value, _CONSTANT):
            self.held.add(path, f"{type(value).__name__} {_name_of(value)}")
        elif not isinstance(value, _LEFT_OUT):
            known = id(value) in self._numbers
            number = self._number(id(value))
            self._kept.append(value)
            if known:
                self.held.add(path, f"is #{number}")
                return
            for kind, visit in _VISITS:
                if isinstance(value, kind):
                    visit(self, value, path, put)
                    return
            self._object(value, path)

    def _number(self, key: object) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    # ---- Numbers --------------------------------------------------------------------------------

    def _tensor(self, value: Tensor, path: str, put: Put | None) -> None:
        if value.layout != torch.strided or value.is_quantized:
            raise Unseen(f"{path} is a tensor of the layout {value.layout}")
        if value.grad_fn is not None:
            raise Unseen(f"{path} is a tensor with the graph of a step")
        if value.is_leaf and value.grad is not None and id(value) not in self._cleared:
            raise Unseen(f"{path} is a tensor with a gradient")

        data = value.detach()
        memory = self._number(("memory", data.untyped_storage().data_ptr()))
        on_host = data.cpu()
        facts = (
            *(type(value).__name__, tuple(data.shape), data.dtype, data.stride(), data.device.type),
            *(value.requires_grad, memory, data.storage_offset()),
        )
        saved: Any = COMPARED
        if data.nbytes <= _MOST_BYTES and id(value) not in self._restored:
            saved = on_host.clone()

        def put_tensor(new: Tensor) -> None:
            if new.shape == data.shape and new.dtype == data.dtype:
                data.copy_(new)
            elif put is not None:
                put(new.to(data.device))

        self.held.add(path, f"{facts} {_sum(on_host)}", saved, put_tensor)
        if isinstance(value, nn.Parameter):
            flag = value.requires_grad
            self.held.add(f"{path}.requires_grad", repr(flag), flag, value.requires_grad_)
        if value._backward_hooks:
            self.add([*value._backward_hooks.values()], f"{path}.hooks", None)
        for name, part in vars(value).items():
            self.add(part, f"{path}.{name}", functools.partial(setattr, value, name))

    def _array(self, value: np.ndarray, path: str, put: Put | None) -> None:
        if value.dtype.hasobject:
            raise Unseen(f"{path} is an array of objects")
        root = value
        while isinstance(root.base, np.ndarray):
            root = root.base
        memory = self._number(("memory", root.__array_interface__["data"][0]))
        facts = value.dtype, value.shape, value.strides, memory
        text = f"array {facts} {zlib.crc32(np.ascontiguousarray(value).tobytes()):08x}"
        try:
            saved: Any = torch.from_numpy(value.copy())
        except TypeError:
            # torch has no such dtype, for example that of text.
            saved = COMPARED

        def put_array(new: Tensor) -> None:
            if new.shape == value.shape and value.flags.writeable:
                value[...] = new.numpy()
            elif put is not None:
                put(new.numpy())

        self.held.add(path, text, saved, put_array)

    def _generator(self, value: Any, path: str, put: Put | None) -> None:
        state = generator_state(value)
        text = f"{type(value).__name__} {_text_of(state)}"
        self.held.add(path, text, state, functools.partial(set_generator_state, value))

    # ---- Containers -----------------------------------------------------------------------------

    def _dict(self, value: dict[Any, Any], path: str, put: Put | None) -> None:
        self.held.add(path, f"{type(value).__name__} of {len(value)}")
        factory = getattr(value, "default_factory", None)
        if factory is not None:
            self.add(factory, f"{path}.default_factory", None)
        for i, (key, part) in enumerate(value.items()):
            if type(key) in _PLAIN:
                self.add(part, f"{path}[{key!r}]", functools.partial(operator.setitem, value, key))
            else:
                self.add(key, f"{path}.key {i}", None)
                self.add(part, f"{path}.value {i}", None)
        self._attributes(value, path)

    def _list(self, value: Any, path: str, put: Put | None) -> None:
        self.held.add(path, f"{type(value).__name__} of {len(value)}")
        for i, part in enumerate(value):
            self.add(part, f"{path}[{i}]", functools.partial(operator.setitem, value, i))
        self._attributes(value, path)

    def _tuple(self, value: tuple[Any, ...], path: str, put: Put | None) -> None:
        self.held.add(path, f"{type(value).__name__} of {len(value)}")
        for i, part in enumerate(value):
            self.add(part, f"{path}[{i}]", None)

    def _set(self, value: Any, path: str, put: Put | None) -> None:
        if any(type(part) not in _PLAIN for part in value):
            raise Unseen(f"{path} is a set of objects")
        # The order of a set of texts is another one in each process.
        self.held.add(path, f"{type(value).__name__} {sorted(map(repr, value))}")

    # ---- Modules and objects --------------------------------------------------------------------

    def _module(self, value: nn.Module, path: str, put: Put | None) -> None:
        if isinstance(value, torch.jit.ScriptModule):
            raise Unseen(f"{path} is a module of TorchScript")
        self.held.add(path, _type_name(value))
        for kind in ("_parameters", "_buffers", "_modules"):
            for name, part in vars(value)[kind].items():
                self.add(part, f"{path}.{name}", None)

        for name, part in vars(value).items():
            if name in _REGISTERED:
                continue
            if name in _OF_EACH_MODULE and isinstance(part, dict):
                # Hooks have numbers that depend on what else the process has done.
                part = [*part.values()]
            self.add(part, f"{path}.{name}", functools.partial(setattr, value, name))

    def _object(self, value: Any, path: str) -> None:
        if type(value).__name__ == "_lru_cache_wrapper":
            raise Unseen(f"{path} is a cache, whose content cannot be seen")
        for base in type(value).__mro__[:-1]:
            if base.__module__.startswith(_IN_C):
                raise Unseen(f"{path} is a {_type_name(value)}, whose state cannot be seen")
        if not hasattr(value, "__dict__") and not _slots(value):
            raise Unseen(f"{path} is a {_type_name(value)}, whose state cannot be seen")
        self.held.add(path, _type_name(value))
        self._attributes(value, path)

    def _attributes(self, value: Any, path: str) -> None:
        parts = dict(getattr(value, "__dict__", {}))
        parts |= {name: getattr(value, name) for name in _slots(value) if hasattr(value, name)}
        for name, part in parts.items():
            self.add(part, f"{path}.{name}", functools.partial(setattr, value, name))

    # ---- Functions ------------------------------------------------------------------------------

    def _function(self, value: types.FunctionType, path: str, put: Put | None) -> None:
        self.held.add(path, f"function {value.__module__}.{value.__qualname__}")
        # What a function keeps between two calls.
        kept = {
            "closure": value.__closure__ or (),
            "defaults": value.__defaults__ or (),
            "kwdefaults": value.__kwdefaults__ or {},
        }
        for name, parts in kept.items():
            if parts:
                self.add(parts, f"{path}.{name}", None)
        if vars(value):
            self.add(vars(value), f"{path}.vars", None)

    def _builtin(self, value: types.BuiltinFunctionType, path: str, put: Put | None) -> None:
        self.held.add(path, f"function {value.__module__}.{value.__qualname__}")
        # It may be bound to an object, as the functions of a random generator are.
        if not isinstance(value.__self__, types.ModuleType | type(None)):
            self.add(value.__self__, f"{path}.self", None)

    def _bound_method(self, value: types.MethodType, path: str, put: Put | None) -> None:
        self.held.add(path, "method")
        self.add(value.__self__, f"{path}.self", None)
        self.add(value.__func__, f"{path}.function", None)

    def _partial(self, value: Any, path: str, put: Put | None) -> None:
        self.held.add(path, "partial")
        for name in ("func", "args", "keywords"):
            self.add(getattr(value, name), f"{path}.{name}", None)

    def _weak(self, value: Any, path: str, put: Put | None) -> None:
        self.held.add(path, "weak reference")
        self.add(value(), f"{path}()", None)

    def _cell(self, value: types.CellType, path: str, put: Put | None) -> None:
        self.held.add(path, "cell")
        # A cell is empty until its variable is set.
        try:
            content = value.cell_contents
        except ValueError:
            return
        self.add(content, f"{path}.content", None)

    # ---- The plan of an epoch -------------------------------------------------------------------

    def _batch(self, value: Batch, path: str, put: Put | None) -> None:
        if not self.in_plan:
            raise Unseen(f"{path} is a batch")
        # Its images follow from its index, the epoch and the seed.
        self.held.add(path, "batch")
        self.add(value.index, f"{path}.index", None)
        self.add(value.labels, f"{path}.labels", None)

    def _iterator(self, value: Iterator[Any], path: str, put: Put | None) -> None:
        # Nobody but the plan may move it on, so that its position is known.
        if not self.in_plan:
            raise Unseen(f"{path} is a {_type_name(value)}, whose position cannot be seen")
        self.held.add(path, _type_name(value))
        # These are the variables of a generator, and what an iterator goes through.
        parts = gc.get_referents(value)
        if isinstance(value, _WITH_A_RESULT):
            # Whether the tuple of the last result is used again depends on who else holds it.
            parts = parts[:1]
        # A last None comes once the generator, or a function that it has called, has handled an
        # exception. NumPy's draws do, and a resume skips them. Variables before it that are None
        # go as well, because they cannot be told from it.
        while isinstance(value, types.GeneratorType) and parts and parts[-1] is None:
            parts.pop()
        for i, part in enumerate(parts):
            self.add(part, f"{path}.{i}", None)


_VISITS: tuple[tuple[Any, Callable[[_Walk, Any, str, Put | None], None]], ...] = (
    (Tensor, _Walk._tensor),
    (np.ndarray, _Walk._array),
    (_GENERATORS, _Walk._generator),
    (nn.Module, _Walk._module),
    (dict, _Walk._dict),
    ((list, collections.deque), _Walk._list),
    (tuple, _Walk._tuple),
    ((set, frozenset), _Walk._set),
    (types.FunctionType, _Walk._function),
    (types.BuiltinFunctionType, _Walk._builtin),
    (types.MethodType, _Walk._bound_method),
    (functools.partial, _Walk._partial),
    (weakref.ref, _Walk._weak),
    (types.CellType, _Walk._cell),
    (Batch, _Walk._batch),
    (_ITERATORS, _Walk._iterator),
)


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _name_of(value: Any) -> str:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, types.ModuleType | types.CodeType):
        name: str = getattr(value, "__name__", "") or getattr(value, "co_name", "")
        return name
    return repr(value)


def _slots(value: object) -> list[str]:
    names: list[str] = []
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return [name for name in names if not name.startswith("__")]


def _sum(on_host: Tensor) -> str:
    content = on_host.contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{zlib.crc32(content.data):08x}"


# ---- Random generators ---------------------------------------------------------------------------


def generator_state(generator: Any) -> Any:
    """Return the state of a random generator as tensors, lists and plain values."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return without_arrays(generator.bit_generator.state)
    if isinstance(generator, random.Random):
        return generator.getstate()
    return without_arrays(generator.get_state(legacy=False))


def set_generator_state(generator: Any, state: Any) -> None:
    """Put a generator into a state that `generator_state` returned for one of its kind."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = with_arrays(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(with_arrays(state))


def without_arrays(state: Any) -> Any:
    """Return the state of a generator of NumPy, with a dict in the place of each array."""
    if isinstance(state, np.ndarray):
        return {"dtype": str(state.dtype), "numbers": state.tolist()}
    if isinstance(state, dict):
        return {name: without_arrays(part) for name, part in state.items()}
    return state


def with_arrays(state: Any) -> Any:
    """Return the state that `without_arrays` was given."""
    if isinstance(state, dict) and set(state) == {"dtype", "numbers"}:
        return np.array(state["numbers"], dtype=state["dtype"])
    if isinstance(state, dict):
        return {name: with_arrays(part) for name, part in state.items()}
    return state


def _text_of(state: Any) -> str:
    return _sum(state) if isinstance(state, Tensor) else f"{zlib.crc32(repr(state).encode()):08x}"
