"""Networks by name.

They are the public functions of this folder's files, `torchvision/NAME`, `timm/NAME` and
`timm/NAME.TAG`, where TAG names published weights. A suite may also say `hf-hub:OWNER/NAME` or
`local-dir:PATH`, which `look_up` finds: a model of timm with its weights. A
model is `name(num_classes, in_shape) -> nn.Module`, with in_shape (channels, height, width), or for
texts `name(num_classes, text_shape)`, with text_shape (length, vocabulary). To add one, add a
function. Importing this package does not import torch.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nlbench.errors import SuiteError, did_you_mean
from nlbench.models._references import Preprocessing as Preprocessing
from nlbench.models._references import Reference as Reference
from nlbench.models._references import is_reference as is_reference
from nlbench.models._references import look_up as look_up

if TYPE_CHECKING:
    from torch import nn

# The prefixes of models from other packages.
EXTERNAL = ("torchvision", "timm")

# The values of `weights` that stand for those that torchvision or timm publish: those on ImageNet
# of a model without a tag, and those of a tag.
PUBLISHED = ("imagenet", "pretrained")


# ---- Names ---------------------------------------------------------------------------------------


def names() -> dict[str, str]:
    """List our own models, name -> first line of its docstring, without importing their files."""
    return {name: found.line for name, found in _functions().items()}


def text_models() -> tuple[str, ...]:
    """Return the names of our models of texts, without importing their files."""
    return tuple(name for name, found in _functions().items() if found.takes_texts)


def check(name: str) -> None:
    """Check that `name` is a model, without building it.

    Raises: SuiteError otherwise, with the model that was probably meant.
    """
    package, slash, inner = name.partition("/")
    if slash and package in EXTERNAL:
        # Not at the top of the file, because it imports torch.
        from nlbench.models import _external

        _external.check(package, inner)
        return

    known = _functions()
    if name not in known:
        others = ", ".join(f"{prefix}/NAME" for prefix in EXTERNAL)
        hint = did_you_mean(name, known)
        raise SuiteError(
            f"unknown model {name!r}. There are: {', '.join(known)}, and {others}.{hint}"
        )


def is_repeatable(name: str) -> bool:
    """Return whether the forward pass of a model is known to do the same in every step.

    That of our own models does, so that it may be captured as a CUDA graph. A graph would not
    notice if the Python code of another model, of torchvision or timm, did not.
    """
    return "/" not in name


# ---- Weights -------------------------------------------------------------------------------------


def check_weights(name: str, weights: str) -> None:
    """Check that a model can have `weights`, without reading them.

    Args:
        weights: "" for none, "imagenet", "pretrained", or a file.
    Raises: SuiteError where the model has no weights of that kind.
    """
    if weights not in PUBLISHED:
        return
    if "/" not in name:
        raise SuiteError(
            f"model {name} has no published weights; models of torchvision and timm have. "
            "Name a file"
        )
    if weights == "pretrained" and "." not in name:
        raise SuiteError(
            f"pretrained is for timm/NAME.TAG, whose tag names the weights, and {name} has no tag"
            f"{_tags(name)}; or set weights: imagenet"
        )


def _tags(name: str) -> str:
    """Return the names with tags of a model of timm, as a part of a message."""
    package, _, inner = name.partition("/")
    if package != "timm":
        return ""
    from nlbench.models import _external

    return f". There are: {', '.join(f'timm/{inner}.{tag}' for tag in _external.tags(inner))}"


def fetch_weights(name: str, weights: str) -> None:
    """Download published weights, if they are not in the package's cache yet.

    Raises: SuiteError where they cannot be downloaded.
    """
    if weights in PUBLISHED:
        from nlbench.models import _external

        _external.fetch(*name.split("/", 1))


def weights_file(name: str, weights: str) -> str:
    """Return the file of `weights`, as a record names it.

    For published weights that is the published file. A user's file is returned as it is; its
    checksum is in the run key.
    """
    if weights not in PUBLISHED:
        return weights
    from nlbench.models import _external

    return _external.weights_file(*name.split("/", 1))


def cached_weights(name: str, weights: str) -> Path | None:
    """Return the file of published weights in their package's cache; None if it is not there."""
    if weights not in PUBLISHED:
        return None
    from nlbench.models import _external

    return _external.cached_file(*name.split("/", 1))


def preprocessing(name: str) -> Preprocessing:
    """Return how images were prepared for the published weights of a model.

    Raises: SuiteError for a model without them.
    """
    check(name)
    from nlbench.models import _references

    try:
        return _references.preprocessing(*name.split("/", 1))
    except ValueError as error:
        raise SuiteError(f"model {name}: {error}") from error


# ---- Networks ------------------------------------------------------------------------------------


def build(
    name: str,
    num_classes: int,
    in_shape: tuple[int, ...],
    *,
    weights: str = "",
    args: Mapping[str, object] | None = None,
) -> nn.Module:
    """Build a network, (B, *in_shape) float -> (B, num_classes) logits.

    Of texts it takes (B, length) int64, numbers of words in [0, vocabulary).

    Args:
        in_shape: (channels, height, width) of one example, or (length, vocabulary) of a text.
        weights: "" draws them; "imagenet" and "pretrained" take those that torchvision or timm
            publish; otherwise a file with a state dict, which is read without executing any code in
            it. A classifier for another number of classes starts from new weights.
        args: further arguments of a model of torchvision or timm, for example img_size.
    Raises: SuiteError for an unknown name, and where the model cannot take such examples, classes,
        weights or arguments.
    """
    check_weights(name, weights)
    check(name)
    takes_texts, is_text = name in text_models(), len(in_shape) == 2
    if takes_texts != is_text:
        message = "is for texts, and these examples are none. `nlbench list models` lists others"
        if is_text:
            message = f"takes no texts. There are, for texts: {', '.join(text_models())}"
        raise SuiteError(f"model {name}: {message}")
    if num_classes < 2 or len(in_shape) not in (2, 3) or min(in_shape) < 1:
        raise SuiteError(
            f"model {name}: needs at least 2 classes and examples of shape (channels, height, "
            f"width), got {num_classes} classes and shape {tuple(in_shape)}"
        )

    package, slash, inner = name.partition("/")
    model: nn.Module
    try:
        if slash:
            from nlbench.models import _external

            published = weights in PUBLISHED
            model = _external.build(
                package, inner, num_classes, in_shape, published=published, args=args or {}
            )
        elif args:
            raise ValueError(f"takes no model_args, got {', '.join(args)}")
        else:
            stem = _functions()[name].stem
            builder = getattr(importlib.import_module(f"nlbench.models.{stem}"), name)
            model = builder(num_classes, in_shape)
        if weights not in ("", *PUBLISHED):
            from nlbench.models import _weights

            _weights.load(model, Path(weights))
    except ValueError as error:
        raise SuiteError(f"model {name}: {error}") from error
    return model


def distances(model: nn.Module) -> dict[str, int]:
    """Return how far each weight of a model of timm is from its classifier, in layers, by name.

    Raises: SuiteError for a model that does not say in which order its layers come.
    """
    if not hasattr(model, "group_matcher"):
        raise SuiteError(
            "a model of this kind does not say in which order its layers come; most models of timm "
            "do. Leave layer_decay at 1"
        )
    from nlbench.models import _external

    return _external.distances(model)


def undecayed(model: nn.Module) -> set[str]:
    """Return the names of the weights that a model of timm asks not to decay; none of another."""
    if not hasattr(model, "no_weight_decay"):
        return set()
    from nlbench.models import _external

    return _external.undecayed(model)


def model_file(name: str) -> Path | None:
    """Return the file that defines one of our own models; None for one of torchvision or timm."""
    check(name)
    found = _functions().get(name)
    return Path(__file__).with_name(f"{found.stem}.py") if found else None


class _Function(NamedTuple):
    """A model: the stem of its file, the first line of its docstring, and what it takes."""

    stem: str
    line: str
    takes_texts: bool


@functools.cache
def _functions() -> dict[str, _Function]:
    """Read the models by name from the files of this folder."""
    found: dict[str, _Function] = {}
    # Parsed and not imported, so that names are listed without torch.
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            if node.name in found:
                first = f"{found[node.name].stem}.py"
                raise SuiteError(f"two models are named {node.name!r}: {first} and {path.name}")
            line = (ast.get_docstring(node) or "").partition("\n")[0]
            takes_texts = any(argument.arg == "text_shape" for argument in node.args.args)
            found[node.name] = _Function(path.stem, line, takes_texts)
    return found
