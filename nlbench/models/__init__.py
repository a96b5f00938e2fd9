"""Networks by name: the public functions of this folder's files, and `torchvision/NAME` and `timm/NAME`.

A model is `name(num_classes, in_shape) -> nn.Module`, with in_shape (channels, height, width). Adding one is adding a
function; importing this package does not import torch.
"""

from __future__ import annotations

import ast
import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench.errors import SuiteError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

EXTERNAL = ("torchvision", "timm")  # prefixes of models that other packages bring


def names() -> dict[str, str]:
    """Our own models: name -> first line of its docstring. Read without importing the files."""
    return {name: line for name, (_, line) in _functions().items()}


def check(name: str) -> None:
    """Raise SuiteError, with a guess at what was meant, unless `name` is a model; builds nothing."""
    package, slash, inner = name.partition("/")
    if slash and package in EXTERNAL:
        from nlbench.models import _external

        _external.check(package, inner)
        return
    known = _functions()
    if name not in known:
        others = ", ".join(f"{prefix}/NAME" for prefix in EXTERNAL)
        raise SuiteError(
            f"unknown model {name!r}. There are: {', '.join(known)}, and {others}.{did_you_mean(name, known)}"
        )


def check_weights(name: str, weights: str) -> None:
    """Raise SuiteError where a model has no weights of that kind: "" none, "imagenet", else a file; reads nothing."""
    if weights == "imagenet" and "/" not in name:
        raise SuiteError(f"model {name} has no published weights; models of torchvision and timm have. Name a file")


def fetch_weights(name: str, weights: str) -> None:
    """Download what "imagenet" stands for, if it is not in the package's cache. Raises SuiteError where it can't be."""
    if weights == "imagenet":
        from nlbench.models import _external

        _external.fetch(*name.split("/", 1))


def weights_file(name: str, weights: str) -> str:
    """Which file "imagenet" stands for, as a record names it; of a file of the user's the key has the checksum."""
    if weights != "imagenet":
        return weights
    from nlbench.models import _external

    return _external.weights_file(*name.split("/", 1))


def build(name: str, num_classes: int, in_shape: tuple[int, ...], *, weights: str = "") -> nn.Module:
    """A network, (B, *in_shape) float -> (B, num_classes) logits.

    Args:
        in_shape: (channels, height, width) of one example.
        weights: "" draws them; "imagenet" are the ones that torchvision or timm publish; else a file with a state dict,
            read without executing anything of it. A classifier for another number of classes starts afresh.
    Raises: SuiteError for an unknown name, and where the model cannot take such examples, classes or weights.
    """
    check_weights(name, weights)
    check(name)
    if num_classes < 2 or len(in_shape) != 3 or min(in_shape) < 1:
        raise SuiteError(
            f"model {name}: needs at least 2 classes and examples of shape (channels, height, width), "
            f"got {num_classes} classes and shape {tuple(in_shape)}"
        )
    package, slash, inner = name.partition("/")
    model: nn.Module
    try:
        if slash:
            from nlbench.models import _external

            model = _external.build(package, inner, num_classes, in_shape, published=weights == "imagenet")
        else:
            stem, _ = _functions()[name]
            model = getattr(importlib.import_module(f"nlbench.models.{stem}"), name)(num_classes, in_shape)
        if weights not in ("", "imagenet"):
            from nlbench.models import _weights

            _weights.load(model, Path(weights))
    except ValueError as error:
        raise SuiteError(f"model {name}: {error}") from error
    return model


def model_file(name: str) -> Path | None:
    """The file that defines one of our own models; None for a model of torchvision or timm."""
    check(name)
    found = _functions().get(name)
    return Path(__file__).with_name(f"{found[0]}.py") if found else None


@functools.cache
def _functions() -> dict[str, tuple[str, str]]:
    """Model name -> (file stem, first docstring line)."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name.startswith("_"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                if node.name in found:
                    raise SuiteError(f"two models are named {node.name!r}: {found[node.name][0]}.py and {path.name}")
                found[node.name] = path.stem, (ast.get_docstring(node) or "").partition("\n")[0]
    return found
