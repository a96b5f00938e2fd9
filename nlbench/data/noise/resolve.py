"""Check a suite's noise mapping and write it out in full, and draw labels by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nlbench import streams
from nlbench.data.base import Info
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.kinds import KINDS, Kind
from nlbench.data.noise.label_files import as_labels, check_labels, read_label_file
from nlbench.data.noise.matrix_files import matrix_warnings, read_matrix
from nlbench.data.noise.relation import require_related
from nlbench.errors import DataError, Problem, SuiteError, did_you_mean, unknown_name
from nlbench.files import digest

# A noise in full: its kind, every parameter in its canonical type, and the digest of its file.
Resolved = Mapping[str, float | str]


# ---- Resolving and drawing -----------------------------------------------------------------------


def resolve(
    noise: Mapping[str, object],
    info: Info,
    base_dir: Path,
    examples: Examples | None = None,
) -> dict[str, float | str]:
    """Check a noise mapping completely and return it with all parameters, in canonical types.

    For `file` and `matrix` the file is read and checked too, and `sha256` of its bytes is added.
    `path` is absolute then. It is no part of what the noise is: `identity` leaves it out. A kind
    whose numbers have changed since its first version adds its `version`. A label file from which
    versions before 0.2 took other labels adds `read`, the columns that it is read by.

    Args:
        base_dir: relative paths start here, in the suite's folder.
        examples: the training examples, where the dataset has been read already. Otherwise
            `require_fit` checks a file against them.
    Raises: SuiteError with every problem of the mapping, such as
        "noise.rate: must be in [0, 1], got 1.4".
    """
    kind = _kind(noise)
    problems = _kind_problems(kind, info)

    resolved: dict[str, float | str] = {"kind": kind.name}
    for param in kind.params:
        if param.name in noise:
            try:
                resolved[param.name] = param.parse(noise[param.name], base_dir.absolute())
            except ValueError as error:
                problems.append(_problem(param.name, str(error)))
        elif param.default is None:
            problems.append(_problem(param.name, f"is required: {param.doc}"))
        elif not param.added:
            resolved[param.name] = param.default
    for param in kind.params:
        if param.added and resolved.get(param.name) == param.default:
            del resolved[param.name]
    problems += _unknown_keys(noise, kind)

    # The file is read only where all else is right, because that can take a while.
    if not problems and "path" in resolved:
        try:
            resolved |= _check_file(resolved, examples or Examples.unread(info))
            resolved["sha256"] = digest(Path(str(resolved["path"])), "sha256")
        except DataError as error:
            # In a message the file is called as in the suite.
            message = str(error).replace(str(resolved["path"]), str(noise["path"]))
            problems.append(_problem("path", message))
    if problems:
        raise SuiteError(problems=problems)
    if kind.version > 1:
        resolved["version"] = kind.version
    return resolved


def identity(noise: Resolved) -> dict[str, float | str]:
    """Return what can change a result in a resolved noise: all but the path of its file."""
    return {key: value for key, value in noise.items() if key != "path"}


def apply(
    noise: Resolved,
    clean_labels: np.ndarray,
    info: Info,
    seed: int,
    images: np.ndarray | None = None,
    examples: Examples | None = None,
) -> np.ndarray:
    """Draw the given labels (N,) int64 of a resolved noise. The clean ones are left alone.

    Args:
        clean_labels: (N,) of all training examples. Noise is drawn on all of them, and the split is
            made afterwards.
        images: (N, ...) of the same examples. Only instance-dependent noise looks at them.
        examples: the same examples. By them, a label file's rows are put in order by the names of
            images. Without them, a file with such names is refused.
    Raises: DataError when the file of `file` or `matrix` has changed or cannot be used; ValueError
        when instance-dependent noise gets no images.
    """
    kind = KINDS[str(noise["kind"])]
    clean = as_labels(clean_labels, "clean_labels")
    params: dict[str, object] = {}
    for param in kind.params:
        params[param.name] = noise.get(param.name, param.default)

    # The run's key holds the digest, so another content would be another run.
    if "sha256" in noise and _digest_now(str(params["path"])) != noise["sha256"]:
        raise DataError(f"{params['path']}: has changed since the suite was read; start again")
    if kind.needs_images:
        if images is None:
            raise ValueError(f"{kind.name} noise depends on the images: pass images")
        params |= {"images": images, "info": info}
    if kind.needs_examples:
        params["examples"] = examples or Examples(info, ())

    given = kind.draw(streams.rng(seed, "noise"), clean, info.num_classes, **params)
    return np.ascontiguousarray(given, np.int64)


# ---- Checks --------------------------------------------------------------------------------------


def _problem(key: object, message: str) -> Problem:
    return Problem(("noise", str(key)), message)


def _kind(noise: Mapping[str, object]) -> Kind:
    """Return the kind that the mapping names. Raises SuiteError where it names none."""
    name = noise.get("kind")
    if isinstance(name, str) and name in KINDS:
        return KINDS[name]
    message = f"is required. There are: {', '.join(KINDS)}."
    if "kind" in noise:
        message = unknown_name("kind", name, KINDS)
    raise SuiteError(problems=[_problem("kind", message)])


def _kind_problems(kind: Kind, info: Info) -> list[Problem]:
    """Return what speaks against this kind of noise on this dataset."""
    messages = []
    if kind.class_ids and info.class_ids != kind.class_ids:
        messages.append(
            f"is defined for {kind.class_ids} and datasets with its classes, not for {info.name}; "
            f"{_instead(info)}"
        )

    # A label file goes by the order of the images.
    if not kind.redrawn and info.redrawn:
        messages.append(
            f"needs a fixed order of images, and {info.name} draws its own for each seed"
        )
    if kind.needs_images and not info.shape:
        messages.append(f"needs images in memory, and those of {info.title} are files")
    if kind.needs_images and info.vocabulary:
        messages.append(f"depends on pixels or features, and {info.title} is texts")
    return [_problem("kind", f"{kind.name} {message}") for message in messages]


def _instead(info: Info) -> str:
    """Return in words which kinds flip labels to certain classes of this dataset."""
    own = [
        kind.name for kind in KINDS.values() if kind.class_ids and kind.class_ids == info.class_ids
    ]
    if own:
        return f"for {info.name} there are {', '.join(own)}, and for any classes pair-flip"
    return "for any classes there is pair-flip"


def _unknown_keys(noise: Mapping[str, object], kind: Kind) -> list[Problem]:
    params = [param.name for param in kind.params]
    known = ["kind", *params]
    problems = []
    for key in noise:
        if key not in known:
            hint = did_you_mean(str(key), known)
            message = f"unknown key. {kind.name} takes: {', '.join(params)}.{hint}"
            problems.append(_problem(key, message))
    return problems


def require_fit(noise: Resolved, examples: Examples) -> None:
    """Raise DataError unless the labels of a `file` noise fit the training examples.

    It is called when the dataset has been read, before the first run. Other kinds always fit.
    """
    if noise["kind"] == "file":
        _check_file(noise, examples)


def warnings_of(noise: Resolved, examples: Examples) -> tuple[str, ...]:
    """Return what a user should know about how the file of a noise was read.

    The file is called by its name alone, because a record holds the sentences, and the same run on
    another machine has it in another folder.
    """
    path = Path(str(noise.get("path", "")))
    if noise["kind"] == "matrix":
        return matrix_warnings(path, examples.info.num_classes)
    if noise["kind"] != "file":
        return ()

    found = read_label_file(path, str(noise["key"]), examples)
    words = []
    if examples.clean is not None and np.array_equal(found.labels, examples.clean):
        words.append("all its labels are the true ones; is it the right file or column?")
    if found.column not in ("", "label", noise["key"]):
        words.append(f"the labels are its column {found.column!r}")
    if found.order not in (None, "index"):
        column = repr(found.order) if found.order else "its unnamed column"
        words.append(f"its rows are put in order by {column}")
    return tuple(f"{path.name}: {word}" for word in words)


def _check_file(resolved: Resolved, examples: Examples) -> dict[str, float | str]:
    """Read the file of a resolved noise, and return what its reading adds to the noise.

    Raises: DataError when it cannot be used.
    """
    path, info = Path(str(resolved["path"])), examples.info
    unrelated = bool(resolved.get("unrelated", False))
    if resolved["kind"] == "matrix":
        read_matrix(path, info.num_classes, unrelated=unrelated)
        return {}

    found = read_label_file(path, str(resolved["key"]), examples)
    check_labels(found.labels, info.num_train, info.num_classes, path, info.num_test)
    if examples.clean is not None and not unrelated:
        require_related(examples.clean, found.labels, info.num_classes, path)
    order = "row" if found.order is None else repr(found.order)
    return {"read": f"{found.column} by {order}"} if found.moved else {}


def _digest_now(path: str) -> str:
    try:
        return digest(Path(path), "sha256")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
