"""Run the checks on a method and report how each ended: what `nlbench check` prints."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlbench import registry
from nlbench.build import problem_of
from nlbench.conformance import loss_checks, report_checks  # noqa: F401
from nlbench.conformance.advice import Failed, Skipped
from nlbench.conformance.checks import CHECKS, Check, import_file
from nlbench.conformance.lab import Lab, quiet
from nlbench.conformance.result import Result, Status
from nlbench.errors import SuiteError, did_you_mean, look_up


def check(
    source: str | Path,
    *,
    params: Mapping[str, Any] | None = None,
    methods_dir: str | Path | None = None,
    only: Sequence[str] = (),
) -> list[Result]:
    """Run the checks on a method and return all results; see `results` for the arguments."""
    return list(results(source, params=params, methods_dir=methods_dir, only=only))


def results(
    source: str | Path,
    *,
    params: Mapping[str, Any] | None = None,
    methods_dir: str | Path | None = None,
    only: Sequence[str] = (),
) -> Iterator[Result]:
    """Run the checks on a method, and yield each result as soon as it is known.

    Args:
        source: a method's name, or its file, which may lie anywhere.
        params: hyperparameters; the others keep their defaults.
        methods_dir: a folder of further method files, for a `source` that is a name.
        only: names of the checks to run. The checks that they depend on run too. Default: all.

    Raises: SuiteError for an unknown method, check or hyperparameter, or a value out of range.
    """
    chosen = with_needed(only)
    file = find_method(source, methods_dir)

    # The records of the trials are thrown away.
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(file, dict(params or {}), Path(folder))
        _refuse_wrong_params(lab)

        ended: dict[str, Status] = {}
        for one in chosen:
            status, message = _run_check(one, lab, ended)
            ended[one.name] = status
            yield Result(one.name, one.claim, status, message)


def with_needed(only: Sequence[str]) -> list[Check]:
    """Return the checks named in `only` and all that they depend on, in their usual order."""
    if not only:
        return list(CHECKS.values())

    wanted: set[str] = set()
    waiting = list(only)
    while waiting:
        name = waiting.pop()
        if name not in CHECKS:
            hint = did_you_mean(name, CHECKS)
            known = ", ".join(CHECKS)
            raise SuiteError(f"--only {name}: unknown check. There are: {known}.{hint}")
        # A needed check may need others in turn.
        if name not in wanted:
            wanted.add(name)
            waiting += CHECKS[name].needs

    # CHECKS has each check after those that it needs.
    return [check for name, check in CHECKS.items() if name in wanted]


def _run_check(check: Check, lab: Lab, ended: Mapping[str, Status]) -> tuple[Status, str]:
    """Run a check, unless one that it depends on was not ok. Return its status and message."""
    for need in check.needs:
        if ended[need] != "ok":
            return "skipped", f"cannot be judged while `{need}` is not ok"

    try:
        with quiet():
            remark = check.function(lab)
    except Failed as error:
        return "FAIL", str(error)
    except Skipped as error:
        return "skipped", str(error)
    return "ok", remark or ""


def find_method(source: str | Path, methods_dir: str | Path | None = None) -> registry.MethodFile:
    """Return the file of a method given by name or path. Raises SuiteError if there is none."""
    path = Path(source)
    if path.suffix != ".py" and len(path.parts) == 1:
        return _find_by_name(str(source), methods_dir)
    if methods_dir is not None:
        raise SuiteError(f"{source}: is a file; --methods-dir is for a method given by its name")
    if path.is_dir():
        raise SuiteError(f"{source}: not a file.")
    if not path.is_file():
        # Nothing is listed if the folder does not exist.
        siblings = [sibling.name for sibling in path.parent.glob("*.py")]
        hint = did_you_mean(path.name, siblings)
        raise SuiteError(f"{source}: there is no such file.{hint}")

    # A file that is also known by name is imported under its own module's name, not a second time.
    with contextlib.suppress(SuiteError):
        for file in registry.method_files([]).values():
            if file.path.resolve() == path.resolve():
                return file
    return registry.MethodFile(path.stem.replace("_", "-"), path.resolve(), "")


def _find_by_name(name: str, methods_dir: str | Path | None) -> registry.MethodFile:
    folders = [] if methods_dir is None else [Path(methods_dir)]
    known = registry.method_files(folders)
    if name not in known and Path(name).exists():
        example = Path(name) / "my_loss.py"
        raise SuiteError(f"{name}: not a method file; name one file in it, for example {example}")
    if name not in known and methods_dir is None:
        hint = did_you_mean(name, known)
        raise SuiteError(
            f"unknown method {name!r}. There are: {', '.join(known)}.{hint}\n"
            "for a method of your own give its file, for example my_methods/my_loss.py, "
            "or --methods-dir"
        )
    return look_up("method", name, known)


def _refuse_wrong_params(lab: Lab) -> None:
    """Raise SuiteError for a hyperparameter from the command line that cannot be.

    It is no defect of the method, so no check may fail for it. All other errors are ignored here,
    because a check reports them.
    """
    with contextlib.suppress(Failed):
        import_file(lab)
        # Raises SuiteError for an unknown name or a wrong type.
        _ = lab.params
        try:
            with quiet():
                lab.build()
        except ValueError as error:
            problem = problem_of(error, lab.given)
            if problem.path:
                raise SuiteError(f"--set {problem.path[0]}: {problem.message}") from None
        except KeyboardInterrupt:
            raise
        except BaseException:
            return
