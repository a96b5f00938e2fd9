"""Networks by name.

They are the public functions of this folder's files, `torchvision/NAME`, `timm/NAME` and
`timm/NAME.TAG`, where TAG names published weights. A suite may also say `hf-hub:OWNER/NAME` or
`local-dir:PATH`, which `look_up` finds: a model of timm with its weights.

A model is `name(num_classes, in_shape) -> nn.Module`, with in_shape (channels, height, width), or
for texts `name(num_classes, text_shape)`, with text_shape (length, vocabulary). To add one, add a
function. Arguments after a `*` are options, which a protocol gives behind the name:
`mlp-width=512-depth=3`. Importing this package does not import torch.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench.errors import SuiteError, did_you_mean, unknown_key
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
    return {name: model.line for name, model in _functions().items()}


def text_models() -> tuple[str, ...]:
    """Return the names of our models of texts, without importing their files."""
    return tuple(name for name, model in _functions().items() if model.takes_texts)


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

    _own(name)


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
    takes_texts = "/" not in name and _own(name)[0].takes_texts
    is_text = len(in_shape) == 2
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
            found, options = _own(name)
            builder = getattr(importlib.import_module(f"nlbench.models.{found.stem}"), found.name)
            model = builder(num_classes, in_shape, **options)
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
    return None if "/" in name else Path(__file__).with_name(f"{_own(name)[0].stem}.py")


# ---- Our own models ------------------------------------------------------------------------------


# What an option may be: the type of its default says which.
Option = bool | int | float


@dataclass(frozen=True)
class _Model:
    """A function of this folder's files.

    Attributes:
        stem: of the file.
        line: the first line of its docstring.
        options: its keyword-only arguments with their defaults.
        takes_texts: whether its examples are texts.
    """

    name: str
    stem: str
    line: str
    options: dict[str, Option]
    takes_texts: bool


def _own(name: str) -> tuple[_Model, dict[str, Option]]:
    """Return one of our own models, and the options that its name gives.

    Raises: SuiteError for an unknown model or option, and for a value of another type.
    """
    # Before each option, but not in a number such as 1e-3.
    base, *settings = re.split(r"-(?=[A-Za-z_]\w*=)", name)
    known = _functions()
    if base not in known:
        others = ", ".join(f"{prefix}/NAME" for prefix in EXTERNAL)
        hint = did_you_mean(base, known)
        raise SuiteError(
            f"unknown model {name!r}. There are: {', '.join(known)}, and {others}.{hint}"
        )

    model = known[base]
    options: dict[str, Option] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in model.options:
            takes = {option: f"{option} ({value})" for option, value in model.options.items()}
            raise SuiteError(f"model {name}: {key}: {unknown_key(key, takes)}")
        if key in options:
            raise SuiteError(f"model {name}: {key} is given twice")
        options[key] = _option(name, key, text, model.options[key])
    return model, options


def _option(name: str, key: str, text: str, default: Option) -> Option:
    """Return the value of an option. Raises SuiteError where it is not of the default's type."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return int(text) if isinstance(default, int) else float(text)
    except (KeyError, ValueError):
        kinds = {bool: "true or false", int: "a whole number", float: "a number"}
        raise SuiteError(
            f"model {name}: {key} must be {kinds[type(default)]}, got {text!r}"
        ) from None


@functools.cache
def _functions() -> dict[str, _Model]:
    """Read the models from the files of this folder, by name."""
    found: dict[str, _Model] = {}
    # Parsed and not imported, so that names are listed without torch.
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            if node.name in found:
                first = f"{found[node.name].stem}.py"
                raise SuiteError(f"two models are named {node.name!r}: {first} and {path.name}")
            line = (ast.get_docstring(node) or "").partition("\n")[0]
            options: dict[str, Option] = {}
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                if default is not None:
                    options[argument.arg] = ast.literal_eval(default)
            takes_texts = any(argument.arg == "text_shape" for argument in node.args.args)
            found[node.name] = _Model(node.name, path.stem, line, options, takes_texts)
    return found
