"""From a method's class and a suite's values to a method that can be trained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from nlbench.errors import Problem, in_words, shown

if TYPE_CHECKING:
    from nlbench.data.base import Info
    from nlbench.method import Method, Task

M = TypeVar("M", bound="Method")


def typed_value(value: object, annotation: Any) -> object:
    """Return a hyperparameter's value in its annotated type.

    Raises: ValueError, saying what the value must be.
    """
    try:
        typed: object = TypeAdapter(annotation).validate_python(value, strict=True)
        # The value becomes part of a run's key, which is hashed as JSON.
        json.dumps(typed, allow_nan=False)
    except PydanticUserError:
        raise ValueError(f"is annotated as {annotation}, which a suite cannot give") from None
    except ValidationError as error:
        raise ValueError(in_words(error.errors()[0])) from None
    except ValueError:
        raise ValueError(f"must be finite, got {shown(value)}") from None
    except TypeError:
        message = f"must be numbers, text, lists and mappings, got {shown(value)}"
        raise ValueError(message) from None
    return typed


# In a memory (N, C) of a task that arguments are checked on.
_MOST_NUMBERS = 2**24

# Privileged information that exists for any dataset whose true labels are known.
_MEASURED = ("noise_rate", "T")


def build_method(cls: type[M], params: Mapping[str, object], task: Task) -> M:
    """Build the method on `task`, which is left with the privileged information it declares.

    The constructor sees what the class declares in `told`, a training what the instance declares.

    Args:
        params: every hyperparameter.
        task: holds all privileged information there is.
    Raises: ValueError for a value that the method refuses, and for information that it declares
        but that does not exist; MethodError for a method that could not train. Whatever else the
        constructor raises.
    """
    # Loaded here, because it imports torch.
    from nlbench.contract import hooks

    # Only what is declared can be read, so that a table's note on privileged information is true.
    known = dict(task.privileged)
    task.privileged = _declared(cls.told, known)
    method = cls(task, **params)
    hooks.refuse_instance(method)
    task.privileged = _declared(method.told, known)
    return method


def _declared(told: Iterable[str], known: Mapping[str, object]) -> dict[str, object]:
    """Return the part of the privileged information `known` that a method declares."""
    values = {}
    for name in told:
        if name in known:
            values[name] = known[name]
        elif name in _MEASURED:
            why = "the dataset has no true training labels"
            raise ValueError(f"needs to be told {name}, which is unknown: {why}")
        else:
            raise ValueError(f"told names {name!r}; a method can be told: {', '.join(known)}")
    return values


def problem_of(error: ValueError, given: Iterable[str]) -> Problem:
    """Return a constructor's error as a problem of the hyperparameter that its message names.

    Its path is empty when the message names none of `given`. A name at the beginning of the message
    counts before others, and is then left out of the problem's message.
    """
    message = str(error)
    named = [name for name in given if re.search(rf"\b{re.escape(name)}\b", message)]
    if not named:
        return Problem((), message)

    first = min(named, key=lambda name: not message.startswith(f"{name} "))
    return Problem((first,), message.removeprefix(f"{first} "))


def dummy_task(info: Info) -> Task:
    """Return a task of the dataset's size with made-up labels, to check arguments on.

    It has fewer examples where a memory of them all would be large. Memories are to be narrow, so
    that a method which heeds that can be told from others.
    """
    import torch

    from nlbench.method import Task

    C = info.num_classes
    N = min(info.num_train or 1000, max(1000, _MOST_NUMBERS // C))
    # So that a matrix (C, C) cannot be taken for something with a row for each example.
    N += N == C
    # Whether a run can be told them is checked by `plan.told`, which knows what the suite gives.
    known: dict[str, object] = {
        "noise_rate": 0.2,
        "T": torch.eye(C, dtype=torch.float64) * 0.8 + 0.2 / C,
    }

    return Task(
        num_train=N,
        num_classes=C,
        labels=torch.arange(N) % C,
        epochs=100,
        steps_per_epoch=100,
        batch_size=128,
        privileged=known,
        memory=torch.bfloat16,
    )
