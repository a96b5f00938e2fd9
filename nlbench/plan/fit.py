"""Fit."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from nlbench.errors import SuiteError
from nlbench.plan import presets
from nlbench.plan import protocol as protocols
from nlbench.plan.problems import Problems
from nlbench.plan.protocol import Protocol, merge_values
from nlbench.plan.spec import STAND_IN
from nlbench.plan.suite_file import MethodEntry, Suite


def row_protocol(
    suite: Suite,
    entry: MethodEntry,
    row: str,
    dataset: str,
    info: Any,
    base: Path,
    settings: Mapping[str, Any],
    problems: Problems,
) -> tuple[Protocol, str] | None:
    """The row's protocol on a dataset, and where the file of its weights lies, if it names one.

    None when the suite's or the command line's values are wrong.
    """

    def report(key: str, message: str, options: Mapping[str, Any]) -> None:
        top = key.partition(".")[0]
        if top in options:
            problems.add_option(f"--set {key}", message)
        elif top in entry.per_dataset.get(dataset, {}).get("protocol", {}):
            problems.add(["methods", row, "per_dataset", dataset, "protocol", *key.split(".")], message)
        elif top in entry.protocol:
            problems.add(["methods", row, "protocol", *key.split(".")], message)
        elif top in suite.overrides:
            problems.add(["overrides", *key.split(".")], message)
        else:
            problems.add(["protocol"], f"{key}: {message}")

    own = merge_values(suite.overrides, entry.own_protocol(dataset))
    # The suite's own values first: what is wrong with them is not the command line's to mend.
    for options in ({}, settings) if settings else ({},):
        try:
            name = suite.protocol if suite.protocol in presets.PRESETS else "digits"  # a stand-in; that is reported
            protocol = protocols.resolve(name, info.name, merge_values(own, options))
        except SuiteError as error:
            for line in str(error).splitlines():
                key, _, message = line.partition(": ")
                report(key, message, options)
            return None
    before = len(problems.lines)
    if info.name == STAND_IN:
        return None  # what depends on the dataset cannot be checked
    if unfit := _shape_problem(protocol, info):
        report("crop", unfit, settings)
    elif unfit := _model_problem(protocol.model, info.num_classes, _in_shape(info, protocol)):
        report("model", unfit, settings)
    try:
        weights, path = weights_of(protocol, Path() if "weights" in settings else base)
    except SuiteError as error:
        report("weights", str(error), settings)
        return None
    if path and len(problems.lines) == before:
        unfit = _model_problem(protocol.model, info.num_classes, _in_shape(info, protocol), path, weights)
        if unfit:
            report("weights", unfit, settings)
    for key, message in _split_problems(protocol, info) if info.num_train else ():
        report(key, message, settings)
    if len(problems.lines) > before:
        return None
    return protocol.model_copy(update={"weights": weights}), path


def _shape_problem(protocol: Protocol, info: Any) -> str:
    if not info.shape and not protocol.crop:
        what = f"{info.title} is image files, and protocol {protocol.name} does not say what a network sees of them"
        return f"{what}: for example resize: 256, crop: 224"
    if not info.shape and 0 < protocol.resize < protocol.crop:
        return f"must be at most resize, {protocol.resize}, got {protocol.crop}"
    if info.shape and (protocol.crop or protocol.resize):
        return f"resize and crop are for datasets of image files; {info.title} has shape {tuple(info.shape)}"
    return ""


def weights_of(protocol: Protocol, base: Path) -> tuple[str, str]:
    """What identifies the weights that networks start from, and the file they are in, where one is named."""
    from nlbench import models

    given = protocol.weights
    models.check_weights(protocol.model, given)
    if given in ("", "imagenet"):
        return given, ""
    path = base / Path(given).expanduser()
    if not path.is_file():
        raise SuiteError(f"no such file: {path}; it must be 'imagenet', a file of weights, or left out")
    stat = path.stat()
    return f"sha256:{_digest(path, stat.st_size, stat.st_mtime_ns)}", str(path)


@functools.cache
def _digest(path: Path, size: int, modified: int) -> str:
    """Once for all rows: weights are hundreds of megabytes."""
    from nlbench.files import digest

    return digest(path, "sha256")


def _split_problems(protocol: Protocol, info: Any) -> list[tuple[str, str]]:
    """Whether a dataset has as many examples as its protocol holds out and keeps: (key, what is wrong)."""
    held = round(Decimal(str(protocol.val_fraction)) * info.num_train)
    left = info.num_train - held
    if protocol.val_fraction and not 0 < held < info.num_train:
        what = "no validation example" if held == 0 else "no training example"
        return [("val_fraction", f"leaves {what} of {info.num_train}, got {protocol.val_fraction}")]
    if protocol.subset and not info.num_classes <= protocol.subset <= left:
        return [("subset", f"must be 0 (all) or in [{info.num_classes}, {left}] on {info.name}, got {protocol.subset}")]
    if (drawn := protocol.batches_per_epoch * protocol.batch_size) > (protocol.subset or left):
        what = f"{protocol.batches_per_epoch} of {protocol.batch_size} are {drawn} examples"
        return [("batches_per_epoch", f"{what}, more than the {protocol.subset or left} of {info.name}")]
    return []


def _in_shape(info: Any, protocol: Protocol) -> tuple[int, ...]:
    """(C, H, W) of an example as a network sees it; uint8 images are stored (H, W, C)."""
    if not info.shape:
        return 3, protocol.crop, protocol.crop
    return (info.shape[2], *info.shape[:2]) if info.mean else tuple(info.shape)


@functools.cache
def _model_problem(model: str, num_classes: int, in_shape: tuple[int, ...], weights: str = "", digest: str = "") -> str:
    """Why a model cannot be used on such examples, with the file `weights` of that digest; empty when it can."""
    import torch

    from nlbench import models

    if not weights and _fits_by_shape(model, num_classes, in_shape):
        return ""
    try:  # with numbers: weights have some, and some models of other packages cannot be built from shapes
        with torch.random.fork_rng(devices=[]):
            models.build(model, num_classes, in_shape, weights=weights)
    except SuiteError as error:
        return str(error)
    return ""


def _fits_by_shape(model: str, num_classes: int, in_shape: tuple[int, ...]) -> bool:
    """Whether a model can be built and applied by shapes alone, which takes no memory and no time."""
    import torch

    from nlbench import models

    try:
        models.check(model)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            models.build(model, num_classes, in_shape)
    except (SuiteError, RuntimeError, NotImplementedError):
        return False
    return True
