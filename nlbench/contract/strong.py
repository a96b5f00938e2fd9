"""Whether a method uses strong views, which decides what a run's key holds."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

# Functions of these packages are not looked into, since they use no batch.
_OTHERS = ("nlbench", "numpy", "torch", "torchvision")


def uses_strong_views(method_class: type[Any]) -> bool:
    """Tell whether the code of a method reads an attribute `strong`, as `batch.strong(0)` does.

    Looked at are the functions of the class and of the methods that it is derived from, and the
    functions that these call by name.
    """
    waiting = list(_functions_of(method_class))
    seen = set()
    while waiting:
        function = waiting.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)

        for code in _parts(function.__code__):
            if "strong" in code.co_names:
                return True
            for name in code.co_names:
                called = function.__globals__.get(name)
                if isinstance(called, FunctionType) and not _is_others(called.__module__):
                    waiting.append(called)
    return False


def _functions_of(method_class: type[Any]) -> Iterator[FunctionType]:
    """Yield the functions that a class and its bases define, but those of nlbench itself."""
    for cls in method_class.__mro__:
        if _is_others(cls.__module__):
            continue
        for value in vars(cls).values():
            found = getattr(value, "fget", None) or getattr(value, "__func__", value)
            # A decorator such as torch.no_grad() leaves the function in __wrapped__.
            found = inspect.unwrap(found) if callable(found) else found
            if isinstance(found, FunctionType):
                yield found


def _is_others(module: str) -> bool:
    return module.split(".")[0] in _OTHERS and not module.startswith("nlbench.methods.")


def _parts(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function and of the functions and comprehensions inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
