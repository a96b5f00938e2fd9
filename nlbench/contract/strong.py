"""Whether a method uses strong views, which decides what a run's key holds."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

# Code of these packages, and of Python's own, is not looked into, since it uses no batch.
_OTHERS = frozenset(
    ("nlbench", "numpy", "torch", "torchvision", "PIL", "pandas", "scipy", "sklearn", "timm")
)


def uses_strong_views(method_class: type[Any]) -> bool:
    """Tell whether the code of a method reads an attribute `strong`, as `batch.strong(0)` does.

    Looked at are the functions of the class and of those that it is derived from; and the
    functions, classes and objects that these name, also those of a module or within a partial. The
    attribute `self.strong` is one of the method's own.
    """
    waiting: list[object] = [method_class]
    # By id, since not every object has a hash. The objects are kept, so that no id is used again.
    seen: dict[int, object] = {}
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen[id(found)] = found

        if isinstance(found, FunctionType):
            if any(map(_reads_strong, _parts(found.__code__))):
                return True
            waiting += _named_by(found)
        elif isinstance(found, type):
            if not _is_others(found.__module__):
                waiting += [*vars(found).values(), *found.__bases__]
        else:
            waiting += _inside(found)
    return False


def _named_by(function: FunctionType) -> Iterator[object]:
    """Yield the global values that a function names, and those that it has from around it."""
    if _is_others(function.__globals__.get("__name__")):
        # A decorator of torch has put the method's function inside.
        yield getattr(function, "__wrapped__", None)
        return

    names: dict[str, None] = {}
    for code in _parts(function.__code__):
        names |= dict.fromkeys(code.co_names)
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, ModuleType):
            yield value
        elif not _is_others(value.__name__):
            yield from (vars(value).get(other) for other in names)

    yield getattr(function, "__wrapped__", None)
    for cell in function.__closure__ or ():
        # A cell is empty until its variable has a value.
        try:
            yield cell.cell_contents
        except ValueError:
            continue


def _inside(found: object) -> Iterator[object]:
    """Yield what a descriptor or a partial calls; of another object, its class."""
    if isinstance(found, property):
        yield from (found.fget, found.fset)
    elif isinstance(found, staticmethod | classmethod | MethodType):
        yield found.__func__
    elif isinstance(found, functools.partial | functools.partialmethod | functools.cached_property):
        yield found.func
    else:
        # A function with a cache keeps the one that it calls here.
        yield inspect.getattr_static(found, "__wrapped__", None)
        yield type(found)


def _is_others(module: str | None) -> bool:
    package = (module or "").split(".")[0]
    if (module or "").startswith("nlbench.methods."):
        return False
    return package in _OTHERS or package in sys.stdlib_module_names


def _reads_strong(code: CodeType) -> bool:
    """Tell whether code reads the attribute `strong` of anything but `self`."""
    if "strong" not in code.co_names:
        return False
    of: object = None
    for step in dis.get_instructions(code):
        reads = step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval == "strong"
        if reads and of != "self":
            return True
        if step.opname.startswith(("LOAD_FAST", "LOAD_DEREF")):
            # From Python 3.13 on, one instruction may load two variables.
            of = step.argval[-1] if isinstance(step.argval, tuple) else step.argval
        elif step.opname != "EXTENDED_ARG":
            of = None
    return False


def _parts(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function and of the functions and comprehensions inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
