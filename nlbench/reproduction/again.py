"""Train runs again in a store that is removed afterwards, and compare their numbers.

Where both trainings agree in everything that decides the rounding (`results.rounding`), their
numbers must be the same, bit for bit. Otherwise the accuracy may differ by what chance explains.
"""

from __future__ import annotations

import contextlib
import datetime
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nlbench.errors import StoreError, UserError
from nlbench.plan.spec import RunSpec
from nlbench.reproduction.source import Options, Source, error_of, name_of, source_of, spec_of
from nlbench.results import numbers, reproduced
from nlbench.results.comparison import Verdict, compare
from nlbench.results.integrity import RunFiles
from nlbench.results.record import RunRecord
from nlbench.results.requested import kept_on_request
from nlbench.results.store import Store

if TYPE_CHECKING:
    import torch

    from nlbench.executors.base import Listener

# Nothing goes on from these checkpoints but a run whose process was lost.
_CHECKPOINT_SECONDS = 300.0


@dataclass(frozen=True)
class Result:
    """One run, and whether it gives the same numbers again.

    Attributes:
        name: the run in words.
        detail: why it could not be tried, where the numbers differ, or what was compared.
        noted: whether the store has a note of it.
    """

    key: str
    record: RunRecord | None
    name: str
    verdict: Verdict
    detail: str
    noted: bool = False


def reproduce(
    store: Store,
    keys: Sequence[str],
    options: Options,
    *,
    listener: Callable[[int], contextlib.AbstractContextManager[Listener]],
    report: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Train these runs of a store again, and compare their numbers with those in the store.

    A run that is reproduced gets a note beside its record, if the store can be written.

    Args:
        listener: returns what gets reports on so many runs, while they are trained.
        report: called with each result, also of the runs that ended before an interruption.
    Returns: a result for each key, in their order.
    Raises: SuiteError for a device or a folder of methods that is not there.
    """
    from nlbench.executors import base

    source = source_of(store, options)
    # A device that is not there is an error before anything is read.
    base.pick_devices(options.device)
    results: dict[str, Result] = {}

    def tell(result: Result) -> None:
        results[result.key] = result
        report(result)

    todo: dict[_How, list[RunSpec]] = {}
    compared: dict[str, RunFiles] = {}
    for key in keys:
        files = store.check(key) or RunFiles()
        if files.record is None:
            why = "; ".join(f"{damage.path}: {damage.reason}" for damage in files.damage)
            tell(Result(key, None, key, Verdict.UNTRIED, why or "there is no record"))
            continue
        try:
            spec = spec_of(files, files.record, source)
        except UserError as error:
            name = name_of(files.record, source)
            tell(Result(key, files.record, name, Verdict.UNTRIED, str(error)))
        else:
            compared[key] = files
            device = _device_for(files.record, options)
            how = _How(device, *kept_on_request(store.run_dir(key)))
            todo.setdefault(how, []).append(spec)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nlbench-reproduce-"))
        again = Store(folder, store.warn)
        ended = False
        try:
            with listener(len(compared)) as listening:
                for how, specs in todo.items():
                    devices = base.pick_devices(how.device)
                    _train(specs, options, devices, how, source, again, listening)
            ended = True
        finally:
            # After an interruption, too: what was trained by then has its result.
            for key, files in compared.items():
                new = again.read(key)
                if new is not None:
                    tell(_judged(store, files, again, new, source))
                elif ended:
                    tell(Result(key, None, key, Verdict.UNTRIED, "its training left no record"))
    return [results[key] for key in keys]


def _device_for(record: RunRecord, options: Options) -> str:
    """Return the names of the devices to train a run on.

    "auto" is the CPU for a run that was trained on one: only there its numbers are the same.
    """
    on_cpu = record.environment.get("device") == "cpu"
    return "cpu" if options.device == "auto" and on_cpu else options.device


class _How(NamedTuple):
    """How some of the runs are trained again: the names of the devices, and what they keep."""

    device: str
    probabilities: bool
    gradients: bool


def _train(
    specs: Sequence[RunSpec],
    options: Options,
    devices: tuple[torch.device, ...],
    how: _How,
    source: Source,
    again: Store,
    listener: Listener,
) -> None:
    from nlbench import executors
    from nlbench.executors import base

    run_options = base.RunOptions(
        devices=devices,
        data_dir=source.places.data_dir,
        methods=source.methods,
        checkpoint_seconds=_CHECKPOINT_SECONDS,
        jobs=base.count_jobs(options.jobs, specs, devices),
        timeout_seconds=60 * options.timeout,
        save_probabilities=how.probabilities,
        record_gradients=how.gradients,
    )
    again.require_writable()
    todo = [base.Todo(spec, None) for spec in specs]
    executors.choose(run_options).execute(todo, run_options, again, listener)


def _judged(store: Store, files: RunFiles, again: Store, new: RunRecord, source: Source) -> Result:
    """Compare a run with its second training, and note in the store that it was reproduced."""
    old = files.record
    if old is None:
        raise ValueError("a run without a record has nothing to compare")

    def result(verdict: Verdict, detail: str, noted: bool = False) -> Result:
        return Result(old.key, old, name_of(old, source), verdict, detail, noted)

    if new.status == "failed":
        return result(Verdict.UNTRIED, f"its training failed: {error_of(new)}")
    folder = store.run_dir(old.key)
    try:
        was = numbers.read_numbers(folder, old)
        now = numbers.read_numbers(again.run_dir(new.key), new)
    except ValueError as error:
        return result(Verdict.UNTRIED, str(error))
    present = store.check(old.key)
    if present is None or present.checksum != files.checksum:
        return result(Verdict.UNTRIED, "another process has trained it again meanwhile")

    found = compare(was, now)
    detail = found.detail
    if old.code != new.code:
        detail += "; the record was made by another version of the code"

    if found.outcome is None:
        # The same code and the same hardware give other numbers now: an older note is refuted.
        if found.same_hardware and store.reproduced_under(old.key, new.code):
            store.set_aside(folder / reproduced.NOTE, "the run was not reproduced this time")
        return result(found.verdict, detail)
    note = reproduced.Note(
        key=old.key,
        record=files.checksum,
        files=reproduced.checksums_of_files(folder),
        code=new.code,
        outcome=found.outcome,
        compared=reproduced.Compared(
            epochs=len(was.history),
            columns=was.columns,
            arrays=list(was.arrays),
            metrics=list(old.metrics),
        ),
        accuracies=found.accuracies,
        environment=dict(new.environment),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return result(found.verdict, detail, _keep(store, note))


def _keep(store: Store, note: reproduced.Note) -> bool:
    """Write a note into the store, and return whether it has one. Warns where it cannot."""
    # On the hardware of the record the numbers may have been the same. That says more.
    if note.outcome != reproduced.Outcome.BITS and store.reproduced_under(note.key, note.code):
        return True

    folder = store.run_dir(note.key)
    try:
        with store.lock(note.key) as mine:
            if mine:
                reproduced.write_note(folder, note)
                return True
        store.warn(f"{folder}: another process holds the run, so no note was written")
    except OSError as error:
        place = folder / reproduced.NOTE
        store.warn(f"{place}: the note cannot be written ({error.strerror})")
    except StoreError as error:
        store.warn(f"no note was written: {error}")
    return False
