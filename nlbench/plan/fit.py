"""Check that a protocol, with its model and weights, can be used on a dataset."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench.data import stratified
from nlbench.data.base import Info
from nlbench.errors import Problem, SuiteError
from nlbench.files import user_path
from nlbench.plan.protocol import Protocol

if TYPE_CHECKING:
    from torch import nn

# --- Weights -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """The weights that networks start from.

    Attributes:
        identity: "", "imagenet", "pretrained", or "sha256:..." of the file.
        path: the file, if one is named, else "".
    """

    identity: str
    path: str


def read_weights(protocol: Protocol, base: Path) -> Weights:
    """Return the weights that a protocol names, with the digest of their file.

    Args:
        base: the folder that a relative path counts from.
    Raises: SuiteError for a model that takes none, and for a file that is not there.
    """
    from nlbench import models

    given = protocol.weights
    models.check_weights(protocol.model, given)
    if given in ("", *models.PUBLISHED):
        return Weights(given, "")

    try:
        path = user_path(base, given)
    except ValueError as error:
        raise SuiteError(str(error)) from None
    if not path.is_file():
        raise SuiteError(
            f"no such file: {path}; it must be 'imagenet', 'pretrained', a file of weights, or "
            "left out"
        )
    stat = path.stat()
    return Weights(f"sha256:{_digest(path, stat.st_size, stat.st_mtime_ns)}", str(path))


# Size and time are arguments, so that a changed file is read again.
@functools.cache
def _digest(path: Path, size: int, modified: int) -> str:
    """Return the file's sha256. Cached, because all rows may start from one large file."""
    from nlbench.files import digest

    return digest(path, "sha256")


# --- Protocol and dataset ----------------------------------------------------------------------


def misfits(protocol: Protocol, info: Info, base: Path) -> list[Problem]:
    """Return why a protocol cannot be used on a dataset, with the protocol's key as the path.

    Args:
        base: the folder that the path of weights counts from.
    """
    problems = _crop_problems(protocol, info) or _model_problems(protocol, info)
    problems += _augment_problems(protocol, info) + _mean_problems(protocol, info)
    try:
        weights = read_weights(protocol, base)
    except SuiteError as error:
        return [*problems, Problem(("weights",), str(error))]

    # Loading weights takes time, and says nothing new about a model that cannot be used at all.
    if weights.path and not problems:
        problems += _model_problems(protocol, info, weights)

    # Where the examples are counted only when the data is read, the split is checked afterwards.
    if info.num_train:
        problems += split_problems(protocol, info)
    return problems


def _crop_problems(protocol: Protocol, info: Info) -> list[Problem]:
    if info.shape:
        if not protocol.crop and not protocol.resize:
            return []
        shape = tuple(info.shape)
        message = f"resize and crop are for datasets of image files; {info.title} has shape {shape}"
    elif not protocol.crop:
        message = (
            f"{info.title} is image files, and protocol {protocol.name} does not say what a "
            "network sees of them: for example resize: 256, crop: 224"
        )
    elif 0 < protocol.resize < protocol.crop:
        message = f"must be at most resize, {protocol.resize}, got {protocol.crop}"
    else:
        return []
    return [Problem(("crop",), message)]


def _mean_problems(protocol: Protocol, info: Info) -> list[Problem]:
    """Return why images cannot be normalised by the protocol's own values."""
    if not protocol.mean:
        return []
    # Only images have a mean. Those in files are RGB.
    channels = len(info.mean) if info.shape else 3
    if channels == len(protocol.mean):
        return []
    message = f"must have {channels} values, one for each channel of {info.title}"
    if not channels:
        message = f"is for images, and {info.title} has features, which are used as they are"
    return [Problem(("mean",), message)]


def _augment_problems(protocol: Protocol, info: Info) -> list[Problem]:
    if protocol.augment != "reflect-crop-flip" or info.shape:
        return []
    message = (
        f"reflect-crop-flip is for images in memory, and those of {info.title} are files: "
        "use crop-flip"
    )
    return [Problem(("augment",), message)]


def split_problems(protocol: Protocol, info: Info) -> list[Problem]:
    """Return why a dataset has too few examples to hold out, to keep or to draw."""
    held = stratified.num_held_out(protocol.val_fraction, info.num_train)
    left = info.num_train - held
    if protocol.val_fraction and not 0 < held < info.num_train:
        what = "no validation example" if held == 0 else "no training example"
        message = f"leaves {what} of {info.num_train}, got {protocol.val_fraction}"
        return [Problem(("val_fraction",), message)]

    if protocol.subset and not info.num_classes <= protocol.subset <= left:
        allowed = f"0 (all) or in [{info.num_classes}, {left}] on {info.name}"
        return [Problem(("subset",), f"must be {allowed}, got {protocol.subset}")]

    count, size = protocol.batches_per_epoch, protocol.batch_size
    kept = protocol.subset or left
    if count * size > kept:
        message = (
            f"{count} of {size} are {count * size} examples, more than the {kept} of {info.name}"
        )
        return [Problem(("batches_per_epoch",), message)]
    return []


# --- Models ------------------------------------------------------------------------------------


def _model_problems(
    protocol: Protocol, info: Info, weights: Weights | None = None
) -> list[Problem]:
    """Return why the model cannot be used on the dataset's examples, with the weights of a file."""
    shape = _shape_for_network(protocol, info)
    # As text, because a dictionary has no hash.
    args = json.dumps(protocol.model_args, sort_keys=True)
    if weights is None:
        key, message = "model", _why_not(protocol.model, info.num_classes, shape, args)
        if not message and protocol.layer_decay != 1:
            key = "layer_decay"
            message = _why_no_layers(protocol.model, info.num_classes, shape, args)
    else:
        key = "weights"
        given = weights.path, weights.identity
        message = _why_not(protocol.model, info.num_classes, shape, args, *given)
    return [Problem((key,), message)] if message else []


def _shape_for_network(protocol: Protocol, info: Info) -> tuple[int, ...]:
    """Return (C, H, W) of an example as a network sees it; (L, vocabulary) of a text."""
    if info.vocabulary:
        return info.shape[0], info.vocabulary
    if not info.shape:
        return 3, protocol.crop, protocol.crop

    # uint8 images are stored as (H, W, C), features as (C, H, W). Only images have a mean.
    if info.mean:
        height, width, channels = info.shape
        return channels, height, width
    return tuple(info.shape)


@functools.cache
def _why_not(
    model: str,
    num_classes: int,
    in_shape: tuple[int, ...],
    args: str,
    weights: str = "",
    digest: str = "",
) -> str:
    """Return why a model cannot be used on such examples, or "".

    Args:
        args: the model's further arguments, as JSON.
        weights: a file to load into the model.
        digest: of that file. Part of the arguments so that a changed file is looked at again.
    """
    import torch

    from nlbench import models

    if not weights and _by_shape(model, num_classes, in_shape, args) is not None:
        return ""

    # Build it with numbers: weights have some, and some models of other packages need some.
    try:
        # Building draws weights, and the caller's random numbers must stay as they are.
        with torch.random.fork_rng(devices=[]):
            models.build(model, num_classes, in_shape, weights=weights, args=json.loads(args))
    except SuiteError as error:
        return str(error)
    return ""


@functools.cache
def _why_no_layers(model: str, num_classes: int, in_shape: tuple[int, ...], args: str) -> str:
    """Return why the layers of a model that can be built have no order, or ""."""
    import torch

    from nlbench import models

    network = _by_shape(model, num_classes, in_shape, args)
    try:
        if network is None:
            with torch.random.fork_rng(devices=[]):
                network = models.build(model, num_classes, in_shape, args=json.loads(args))
        models.distances(network)
    except SuiteError as error:
        return str(error)
    return ""


def _by_shape(
    model: str, num_classes: int, in_shape: tuple[int, ...], args: str
) -> nn.Module | None:
    """Try to build and apply a model by shapes alone, which takes no memory and no time."""
    import torch

    from nlbench import models

    try:
        models.check(model)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return models.build(model, num_classes, in_shape, args=json.loads(args))
    # Some models of other packages cannot be built by shapes. The caller tries with numbers.
    except (SuiteError, RuntimeError, NotImplementedError):
        return None
