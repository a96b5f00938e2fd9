"""Build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from nlbench.errors import in_words, shown


def typed_value(value: Any, annotation: Any) -> Any:
    """A hyperparameter's value in its annotated type. Raises ValueError saying what it must be."""
    try:
        typed = TypeAdapter(annotation).validate_python(value, strict=True)
        json.dumps(typed, allow_nan=False)  # it becomes part of a run's key
    except PydanticUserError:
        raise ValueError(f"is annotated as {annotation}, which a suite cannot give") from None
    except ValidationError as error:
        raise ValueError(in_words(error.errors()[0])) from None
    except ValueError:
        raise ValueError(f"must be finite, got {shown(value)}") from None
    except TypeError:
        raise ValueError(f"must be numbers, text, lists and mappings, got {shown(value)}") from None
    return typed


_TOLD = ("noise_rate", "T")  # what a method can be told, where it is known


def build_method(cls: type, params: Mapping[str, Any], task: Any) -> Any:
    """The method, told what it declares: on its class before it is built, on the instance afterwards."""
    secrets = dict(task.privileged)
    _check_told(cls, secrets)
    task.privileged = {name: secrets[name] for name in cls.told}  # type: ignore[attr-defined]
    method = cls(task, **params)
    _check_told(method, secrets)
    task.privileged = {name: secrets[name] for name in method.told}
    return method


def _check_told(method: Any, secrets: Mapping[str, Any]) -> None:
    for name in method.told:
        if name in _TOLD and name not in secrets:
            raise ValueError(f"needs to be told {name}, which is unknown: the dataset has no true training labels")
        if name not in secrets:
            raise ValueError(f"told names {name!r}; a method can be told: {', '.join(secrets)}")


def dummy_task(info: Any) -> Any:
    """A task of the dataset's size with made-up labels, on which a method can be built to check its arguments."""
    import torch

    from nlbench.method import Task

    N, C = info.num_train or 1000, info.num_classes
    told = {"noise_rate": 0.2, "T": torch.eye(C, dtype=torch.float64) * 0.8 + 0.2 / C}
    if "clean" not in info.label_sets:
        told = {"noise_rate": told["noise_rate"]} if info.estimated_noise_rate else {}
    return Task(
        num_train=N,
        num_classes=C,
        labels=torch.arange(N) % C,
        epochs=100,
        steps_per_epoch=100,
        batch_size=128,
        privileged=told,
    )
