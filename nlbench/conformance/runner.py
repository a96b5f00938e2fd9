"""`nlbench check`: what every method must hold to, tried in the real harness on made-up data. Each check is a function.

A check raises Failed with what was seen, where, and the likely fix. Its docstring is what the command prints beside its
name. The trainings are short (70 examples of 8x8, a small network, 4 epochs) and shared between the checks.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nlbench import registry
from nlbench.conformance.advice import Failed
from nlbench.conformance.checks import CHECKS, Skipped, import_file
from nlbench.conformance.lab import Lab, quiet
from nlbench.errors import SuiteError, did_you_mean, look_up


@dataclass(frozen=True)
class Result:
    """How one check ended."""

    name: str
    what: str  # the check's first docstring line
    status: Literal["ok", "FAIL", "skipped"]
    message: str = ""  # of one that is ok: a remark

    def lines(self) -> list[str]:
        head = f"{self.status:<8} {self.name:<15} "
        if self.status != "FAIL":
            said = [self.what, self.message] if self.status == "ok" else [self.message]
            return [head + "; ".join(part for part in said if part)]
        return [head + self.what, *(f"         {line}".rstrip() for line in self.message.splitlines())]


def check(
    source: str | Path, *, params: Mapping[str, Any] | None = None, methods_dir: str | Path | None = None
) -> list[Result]:
    """Every check on the method `source`, a name or a file; see `results`."""
    return list(results(source, params=params, methods_dir=methods_dir))


def results(
    source: str | Path, *, params: Mapping[str, Any] | None = None, methods_dir: str | Path | None = None
) -> Iterator[Result]:
    """Results one by one, as they come.

    Args:
        source: a method's name, or its file, which may lie anywhere.
        params: hyperparameters; the rest keep their defaults.
        methods_dir: a folder of further method files, where `source` is a name.
    Raises: SuiteError for a method or a hyperparameter that is not there, or a value out of range.
    """
    file = find_method(source, methods_dir)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(file, dict(params or {}), Path(folder))
        _refuse_wrong_params(lab)
        ended: dict[str, str] = {}
        for name, (function, needs) in CHECKS.items():
            what = (function.__doc__ or "").partition("\n")[0]
            missing = next((need for need in needs if ended[need] != "ok"), None)
            status: Literal["ok", "FAIL", "skipped"] = "ok"
            message = ""
            if missing:
                status, message = "skipped", f"cannot be judged while `{missing}` is not ok"
            else:
                try:
                    with quiet():
                        message = function(lab) or ""
                except Failed as error:
                    status, message = "FAIL", str(error)
                except Skipped as error:
                    status, message = "skipped", str(error)
            ended[name] = status
            yield Result(name, what, status, message)


def find_method(source: str | Path, methods_dir: str | Path | None = None) -> registry.MethodFile:
    """The file of a name or a path. Raises SuiteError for what is not there."""
    path = Path(source)
    if path.suffix != ".py" and len(path.parts) == 1:
        known = registry.method_files([Path(methods_dir)] if methods_dir is not None else [])
        if str(source) not in known and path.exists():
            raise SuiteError(f"{source}: not a method file; name one file in it, for example {path / 'my_loss.py'}")
        if str(source) not in known and methods_dir is None:
            hint = did_you_mean(str(source), known)
            raise SuiteError(
                f"unknown method {str(source)!r}. There are: {', '.join(known)}.{hint}\n"
                f"for one of your own name its file, for example my_methods/my_loss.py, or give --methods-dir"
            )
        return look_up("method", str(source), known)
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        what = "not a file" if path.exists() else "there is no such file"
        raise SuiteError(f"{source}: {what}.{did_you_mean(path.name, beside)}")
    with contextlib.suppress(SuiteError):  # one that is known by name is imported under its own module's name
        for file in registry.method_files([]).values():
            if file.path.resolve() == path.resolve():
                return file
    return registry.MethodFile(path.stem.replace("_", "-"), path.resolve(), "")


def _refuse_wrong_params(lab: Lab) -> None:
    """What was given on the command line and cannot be is no fault of the method. Raises SuiteError."""
    with contextlib.suppress(Failed):
        import_file(lab)
        _ = lab.params
        try:
            with quiet():
                lab.build()
        except ValueError as error:
            if named := [name for name in lab.given if re.search(rf"\b{re.escape(name)}\b", str(error))]:
                raise SuiteError(f"--set {named[0]}: {error}") from None
        except Exception:
            return  # a check will say so
