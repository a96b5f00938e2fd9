"""Check the arguments of the Python interface, and name them in messages as Python does.

`nlbench.plan.options` does the same for the command line, which shares most messages.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ParamSpec, TypeVar

from nlbench import errors
from nlbench.errors import SuiteError, UserError, did_you_mean
from nlbench.plan.options import MOST_SEEDS, Jobs, parse_budget

P = ParamSpec("P")
R = TypeVar("R")

# ---- Messages ------------------------------------------------------------------------------------

# The options whose argument in Python has another name.
_OTHER_NAMES = {
    "set": "overrides",
    "gpus": "device",
    "format": "fmt",
    "no-cuda-graphs": "cuda_graphs",
    "for": "purpose",
    "descending": "ascending=False",
}

# A shell command in a message stays as it is, because it is typed into a shell.
_WORDING = re.compile(
    r"(?P<command>`nlbench [^`]*`)"
    r"|`?--set (?P<key>[A-Za-z_][\w.]*)=(?P<value>[^\s`;,]+[^\s`;,.])`?"
    r"|--set (?P<override>[A-Za-z_][\w.]*)"
    r"|`?--stale (?P<stale>keep|rerun)`?"
    r"|`?--jobs (?P<jobs>auto)`?"
    r"|--(?P<choice>format|group-by) (?P<chosen>csv|json|latex|html|md"
    r"|dataset,noise|dataset|noise)\b"
    r"|--columns (?P<columns>[A-Za-z][\w-]*(?:,[\w-]+)+)"
    r"|--(?P<option>[a-z]+(?:-[a-z]+)*)(?P<placeholder> [A-Z]{3,}\b)?"
)


def in_python(text: str) -> str:
    """Return a message with the names of Python's arguments in place of options.

    For example "--set epochs=2" becomes 'overrides={"epochs": 2}', and "--only" becomes "only".
    """
    return _WORDING.sub(_reworded, text)


def _reworded(match: re.Match[str]) -> str:
    if match["command"]:
        return match["command"]
    if match["key"]:
        return "overrides=" + _nested(match["key"].split("."), _literal(match["value"]))
    if match["override"]:
        return "overrides" + "".join(f'["{part}"]' for part in match["override"].split("."))
    if match["stale"]:
        return f'stale="{match["stale"]}"'
    if match["jobs"]:
        return 'jobs="auto"'
    if match["choice"]:
        return f'{_name(match["choice"])}="{match["chosen"]}"'
    if match["columns"]:
        listed = ", ".join(f'"{column}"' for column in match["columns"].split(","))
        return f"columns=[{listed}]"
    name = _name(match["option"])
    return f"{name}={match['placeholder'].strip()}" if match["placeholder"] else name


def _name(option: str) -> str:
    """Return the argument of Python that an option is."""
    return _OTHER_NAMES.get(option, option.replace("-", "_"))


def _nested(keys: Sequence[str], value: str) -> str:
    for key in reversed(keys):
        value = f'{{"{key}": {value}}}'
    return value


def _literal(text: str) -> str:
    if re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", text):
        return text
    return f'"{text}"'


# ---- The interface -------------------------------------------------------------------------------


def python_interface(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function, so that its errors name arguments and not options.

    An unknown argument is a TypeError that names the known ones and the nearest of them.
    """
    signature = inspect.signature(function)
    name = f"nlbench.{function.__name__}"

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_names(name, signature, args, kwargs)
        try:
            return function(*args, **kwargs)
        except UserError as error:
            error.args = (in_python(str(error)),)
            if isinstance(error, SuiteError):
                error.problems = tuple(
                    replace(problem, option=in_python(problem.option)) for problem in error.problems
                )
            raise

    return wrapped


def _check_names(
    name: str, signature: inspect.Signature, args: Sequence[object], kwargs: Mapping[str, object]
) -> None:
    known = list(signature.parameters)
    for given in kwargs:
        if given not in known:
            near = difflib.get_close_matches(given, known, n=1, cutoff=0.55)
            hint = ""
            if near:
                hint = f" Did you mean {near[0]}?"
            elif "overrides" in known:
                hint = " A value of the protocol is given as overrides={NAME: VALUE}."
            raise TypeError(f"{name} has no argument {given}. It takes: {', '.join(known)}.{hint}")

    # Python's own message about too many positional arguments does not say what to write.
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(args) > positional:
        first = known[positional]
        raise TypeError(
            f"{name}: the arguments after {known[positional - 1]} are given by name, "
            f"for example {first}={args[positional]!r}; got {len(args)} without a name"
        )


def warn_caller(line: str) -> None:
    """Warn at the line of the user's program that called nlbench."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "nlbench":
        level, frame = level + 1, frame.f_back
    warnings.warn(errors.printable(in_python(line)), errors.NlbenchWarning, stacklevel=level)


# ---- Arguments -----------------------------------------------------------------------------------


def _shown(value: object) -> str:
    return "None" if value is None else errors.shown(value)


def check_path(name: str, value: object, *, optional: bool = False) -> None:
    """Raise TypeError for what is no path of a folder, ValueError for an empty one."""
    if value is None and optional:
        return
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be the path of a folder, got {_shown(value)}")
    if not os.fspath(value):
        raise ValueError(f'{name} must be the path of a folder, got an empty text; "." is this one')


def check_suite(value: object) -> None:
    """Raise TypeError for what is neither a path nor a name nor a mapping."""
    if isinstance(value, str | os.PathLike | Mapping):
        return
    raise TypeError(
        "suite must be the path of a suite file, the name of a suite, or a mapping with the "
        f"content of a suite file, got {_shown(value)}"
    )


def check_texts(name: str, value: object, what: str, example: str) -> list[str] | None:
    """Return a list of texts, such as the rows of `only`; None means all.

    Raises: TypeError for a single text and for other types, ValueError for an empty list.
    """
    if value is None:
        return None
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        raise TypeError(
            f"{name} must be a list of {what}, got the text {value!r}. Write {name}={parts!r}."
        )
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise TypeError(
            f"{name} must be a list of {what}, for example {name}={example}, got {_shown(value)}"
        )

    items = list(value)
    for item in items:
        if not isinstance(item, str):
            raise TypeError(f"{name} must be a list of {what}, and {_shown(item)} is no text")
    if not items:
        raise ValueError(f"{name} is empty; name at least one, or leave {name} out to take all")
    return list(dict.fromkeys(items))


def check_seeds(value: object) -> list[int] | None:
    """Return the seeds as integers, each once; None means all of the suite.

    Raises: TypeError for what is no list of integers; ValueError for an empty list, and for seeds
        that are negative, too large or too many.
    """
    if value is None:
        return None
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        fix = "Write seeds=[0, 1] or seeds=range(5)."
        if isinstance(value, int) and not isinstance(value, bool):
            fix = f"Write seeds=[{value}]."
        raise TypeError(f"seeds must be a list of integers, got {_shown(value)}. {fix}")

    seeds = []
    for item in value:
        # bool is an integer for Python, and a seed True would be a mistake.
        try:
            if isinstance(item, bool):
                raise TypeError
            seed = operator.index(item)
        except TypeError:
            raise TypeError(
                f"seeds must be a list of integers, and one is {_shown(item)}"
            ) from None
        if not 0 <= seed < 2**63:
            raise ValueError(f"seeds must be from 0 to 2**63 - 1, and one is {seed}")
        seeds.append(seed)
        if len(seeds) > MOST_SEEDS:
            raise ValueError(f"seeds has more than {MOST_SEEDS:,} entries, which is the limit")
    if not seeds:
        raise ValueError("seeds is empty; name at least one, or leave seeds out to take all")
    return list(dict.fromkeys(seeds))


def check_overrides(value: object) -> dict[str, Any] | None:
    """Return the protocol values to replace, as a plain mapping.

    Raises: TypeError for what is no mapping with names as keys.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(
            'overrides must be a mapping, for example overrides={"epochs": 2}, '
            f"got {_shown(value)}"
        )

    for key in value:
        if not isinstance(key, str):
            raise TypeError(
                f"overrides has the key {_shown(key)}; its keys are names such as epochs"
            )
        if "." in key:
            nested = _nested(key.split("."), _shown(value[key]))
            raise ValueError(f"overrides has the key {key!r}; write overrides={nested}")
    return {key: _plain(item) for key, item in value.items()}


def _plain(value: object) -> object:
    """Return a NumPy number as a number of Python, which a run's key is made of."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        return value.item()
    return value


def check_device(value: object) -> None:
    """Raise TypeError for a device that is no text. `pick_devices` checks the text."""
    if isinstance(value, str):
        return
    fix = ""
    if isinstance(value, int) and not isinstance(value, bool):
        fix = f' Write device="cuda:{value}".'
    elif type(value).__module__.partition(".")[0] == "torch":
        fix = f' Write device="{value}".'
    raise TypeError(
        'device must be a text: "auto", "cpu", "cuda", "cuda:1" or "cuda:0,cuda:2", '
        f"got {_shown(value)}.{fix}"
    )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise TypeError for what is no text, ValueError for a text that is none of `choices`."""
    allowed = " or ".join(f'"{choice}"' for choice in choices)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {allowed}, got {_shown(value)}")
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise ValueError(f"{name} must be {allowed}, got {value!r}.{hint}")


def check_text(name: str, value: object, *, optional: bool = True) -> None:
    """Raise TypeError for what is no text, and for None where that is not `optional`."""
    if not isinstance(value, str) and not (value is None and optional):
        raise TypeError(f"{name} must be a text, got {_shown(value)}")


def check_seconds(name: str, value: object, unit: str = "seconds") -> None:
    """Raise TypeError for what is no number, ValueError for a negative one and for NaN."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number of {unit}, got {_shown(value)}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"{name} must be a number of {unit} from 0 on, got {_shown(value)}")


def check_number(name: str, value: object) -> None:
    """Raise TypeError for what is neither a number nor None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name} must be a number, got {_shown(value)}")


def check_epochs(name: str, value: object) -> None:
    """Raise TypeError for what is no integer, ValueError for a negative one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer from 0 on, got {_shown(value)}")
    if value < 0:
        raise ValueError(f"{name} must be an integer from 0 on, got {value}")


def check_budget(value: object) -> float:
    """Return a time in seconds, infinite for None. Raises TypeError, ValueError or SuiteError."""
    if value is None:
        return math.inf
    if isinstance(value, str):
        return parse_budget(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            'budget must be a text such as "6h" or a number of seconds, got ' + _shown(value)
        )
    seconds = float(value)
    if not seconds > 0:
        raise ValueError(f"budget must be a number of seconds above 0, got {_shown(value)}")
    return seconds


def check_jobs(value: object) -> Jobs:
    """Return the number of parallel runs, or "auto". Raises TypeError or ValueError."""
    allowed = 'jobs must be an integer from 1 on, or "auto"'
    if value == "auto":
        return "auto"
    if isinstance(value, str):
        raise ValueError(f"{allowed}, got {value!r}")
    try:
        if isinstance(value, bool):
            raise TypeError
        jobs = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{allowed}, got {_shown(value)}") from None
    if jobs < 1:
        raise ValueError(f"{allowed}, got {jobs}")
    return jobs


def check_count(name: str, value: object) -> int:
    """Return a number from 1 on. Raises TypeError or ValueError."""
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer from 1 on, got {_shown(value)}") from None
    if count < 1:
        raise ValueError(f"{name} must be an integer from 1 on, got {count}")
    return count


def check_flag(name: str, value: object, *, optional: bool = False) -> None:
    """Raise TypeError for what is neither True nor False, nor None where that is `optional`."""
    if isinstance(value, bool) or (value is None and optional):
        return
    allowed = "True, False or None" if optional else "True or False"
    raise TypeError(f"{name} must be {allowed}, got {_shown(value)}")
