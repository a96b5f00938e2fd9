"""Check a suite's noise mapping, write it out, and draw labels by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nlbench import streams
from nlbench.data.base import Info
from nlbench.data.noise.kinds import KINDS, Kind
from nlbench.data.noise.label_files import as_labels, check_labels, read_labels
from nlbench.data.noise.matrix_files import read_matrix
from nlbench.errors import DataError, Problem, SuiteError, did_you_mean, unknown_name
from nlbench.files import digest

# --- what the rest of nlbench calls ------------------------------------------------------------------------------


def resolve(noise: Mapping[str, Any], info: Info, base_dir: Path) -> dict[str, Any]:
    """A suite's noise mapping, checked completely and written out: all parameters, canonical types.

    For `file` and `matrix` the file is read and checked too, and `sha256` of its bytes is added. `path` is then
    absolute, and no part of what the noise is: `identity` leaves it out of a run key.

    Args:
        base_dir: relative paths count from here, the suite's folder.
    Raises: SuiteError with every problem of the mapping, such as
        "noise.rate: must be in [0, 1], got 1.4".
    """
    name = noise.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        message = f"is required. There are: {', '.join(KINDS)}."
        if "kind" in noise:
            message = unknown_name("kind", name, KINDS)
        raise SuiteError(problems=[_problem("kind", message)])
    kind = KINDS[name]
    problems: list[Problem] = []
    if kind.datasets and info.name not in kind.datasets:
        message = f"{name} is defined for {' and '.join(kind.datasets)}, not for {info.name}"
        problems.append(_problem("kind", message))
    if not kind.redrawn and info.redrawn:
        message = f"{name} needs a fixed order of images, and {info.name} draws its own for each seed"
        problems.append(_problem("kind", message))
    if kind.needs_images and not info.shape:
        message = f"{name} needs images in memory, and those of {info.title} are files"
        problems.append(_problem("kind", message))
    resolved: dict[str, Any] = {"kind": name}
    for param in kind.params:
        if param.name in noise:
            try:
                resolved[param.name] = param.parse(noise[param.name], base_dir.absolute())
            except ValueError as error:
                problems.append(_problem(param.name, str(error)))
        elif param.default is None:
            problems.append(_problem(param.name, f"is required: {param.doc}"))
        else:
            resolved[param.name] = param.default
    problems += _unknown_keys(noise, kind)
    if not problems and "path" in resolved:
        problems += _check_file(resolved, info)
    if problems:
        raise SuiteError(problems=problems)
    return resolved


def _problem(key: object, message: str) -> Problem:
    return Problem(("noise", str(key)), message)


def _unknown_keys(noise: Mapping[str, Any], kind: Kind) -> list[Problem]:
    params = [param.name for param in kind.params]
    known = ["kind", *params]
    problems = []
    for key in noise:
        if key not in known:
            hint = did_you_mean(str(key), known)
            message = f"unknown key. {kind.name} takes: {', '.join(params)}.{hint}"
            problems.append(_problem(key, message))
    return problems


def _check_file(resolved: dict[str, Any], info: Info) -> list[Problem]:
    """Read the file of a resolved noise, add its digest, and return what is wrong with it."""
    path = Path(resolved["path"])
    try:
        if resolved["kind"] == "matrix":
            read_matrix(path, info.num_classes)
        else:
            check_labels(read_labels(path, resolved["key"]), info.num_train, info.num_classes, path)
        resolved["sha256"] = digest(path, "sha256")
    except DataError as error:
        return [_problem("path", str(error))]
    return []


def identity(noise: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved noise that can change a result: all but where its file lies."""
    return {key: value for key, value in noise.items() if key != "path"}


def apply(
    noise: Mapping[str, Any], clean_labels: np.ndarray, info: Info, seed: int, images: np.ndarray | None = None
) -> np.ndarray:
    """The given labels (N,) int64 of a resolved noise, a new array; the clean ones are left alone.

    Args:
        clean_labels: (N,) of all training examples: noise is drawn on all of them, the split is made afterwards.
        images: (N, ...) of the same examples; only instance-dependent noise looks at them.
    Raises: DataError when the file of `file` or `matrix` has changed or cannot be used; ValueError when
        instance-dependent noise gets no images.
    """
    kind = KINDS[noise["kind"]]
    clean = as_labels(clean_labels, "clean_labels")
    params = {param.name: noise.get(param.name, param.default) for param in kind.params}
    if kind.needs_images and images is None:
        raise ValueError(f"{kind.name} noise depends on the images: pass images")
    if "sha256" in noise and _digest_now(params["path"]) != noise["sha256"]:
        raise DataError(f"{params['path']}: has changed since the suite was read; start again")
    if kind.needs_images:
        params |= {"images": images, "info": info}
    given = kind.draw(streams.rng(seed, "noise"), clean, info.num_classes, **params)
    return np.ascontiguousarray(given, np.int64)


def _digest_now(path: str) -> str:
    try:
        return digest(Path(path), "sha256")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
