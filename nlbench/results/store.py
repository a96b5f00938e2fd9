"""The record store: one folder of finished runs, shared by suites.

    OUT/runs/<key>/record.json       present as soon as the run has ended, and not before
    OUT/runs/<key>/history.csv       the metrics of each epoch
    OUT/runs/<key>/predictions.npz
    OUT/runs/<key>/checkpoint.pt     while the run is going
    OUT/runs/<key>/lock              likewise
    OUT/suites/<name>.json           the plan that `nlbench table` reads
    OUT/fits/<key>.pt                helper networks that several methods share

A file appears whole or not at all, and nothing that was finished is ever deleted.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench.errors import StoreError, look_up
from nlbench.files import (
    NotWritten,
    make_folder,
    move,
    remove,
    sync_folder,
    temporary_name,
    write_atomic,
    write_new,
    writing,
)
from nlbench.results import parallel
from nlbench.results.integrity import (
    FILES,
    HISTORY,
    NEW,
    PREDICTIONS,
    RECORD,
    Damage,
    Kind,
    RunFiles,
    check_run,
    json_bytes,
    listed_files,
    located,
    places,
    read_object,
    with_checksums,
)
from nlbench.results.lock import hold, holder_of, release
from nlbench.results.place import Place
from nlbench.results.plan_file import check_plan, stated, with_checksum
from nlbench.results.record import RunRecord
from nlbench.results.reproduced import NOTE, Note, Outcome, is_about, read_note
from nlbench.results.schema import LaterVersion

if TYPE_CHECKING:
    import numpy as np

Warn = Callable[[str], None]


# So many locks of other processes are named. Where many share a store, they hold many runs.
_MOST_NAMED = 3

# Of a file that is written for a try: as much as file systems reserve at a time.
_PROBE_BYTES = 4096


def _state(folder: Path) -> object:
    """Return a value that changes when a file of a run is changed or replaced."""
    found: list[object] = []
    for path in places(folder).values():
        try:
            stat = path.stat()
        except OSError as error:
            found.append(error.errno)
        else:
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return found


def free_name(path: Path, word: str) -> Path:
    """Return another name for a file, with a number, so that an earlier file is kept, too."""
    names = (path.with_name(f"{path.name}.{word}-{number}") for number in itertools.count(1))
    return next(other for other in names if not os.path.lexists(other))


def _seen(root: Path, key: str) -> tuple[object, RunFiles | None] | None:
    """Return the state of a run's files, and what was found; None where something is wrong."""
    folder = root / "runs" / key
    try:
        state, found = _state(folder), check_run(folder, key)
    except (OSError, StoreError):
        return None
    return None if found is not None and found.damage else (state, found)


class Store:
    """The folder OUT. Reading needs no preparation; before writing, call `require_writable`.

    Args:
        root: the folder; it need not exist.
        warn: called with one line for each damaged file.
    """

    def __init__(self, root: str | Path, warn: Warn = lambda line: None) -> None:
        self.root = Path(root)
        self.warn = warn
        # The records of runs that executors of this process have reported as ended, by key. Of a
        # run that failed when it was trained again, the store may have kept an older record.
        self.ended: dict[str, RunRecord] = {}
        # What is wrong with the plans that `plans` has left out.
        self.damaged_plans: list[str] = []
        # The folder itself, as far as it was remembered: it must stay the same while runs go on.
        self.place: Place | None = None
        self._checks: list[Callable[[bool], None]] = []
        self._reported: set[Damage] = set()
        self._named_locks: set[str] = set()
        # By key: the state of the run's files, and what was found.
        self._checked: dict[str, tuple[object, RunFiles | None]] = {}

    def require(self) -> None:
        """Raise StoreError for a folder that is not there or holds no records."""
        if (self.root / "runs").is_dir():
            return
        if not self.root.exists():
            raise StoreError(f"{self.root}: there is no such folder; name the folder of records")
        if not self.root.is_dir():
            raise StoreError(f"{self.root}: is a file; name the folder of records")

        raise StoreError(
            f"{self.root}: holds no records, because it has no folder `runs`.{self._near_miss()}"
        )

    def _near_miss(self) -> str:
        """Return " Did you mean 'results'?" where a folder around or in this one is a store."""
        root = self.root.absolute()
        # In a store lie runs/KEY and suites, and beside other folders lies a store.
        around = [root.parent, root.parent.parent]
        inner = sorted(folder.parent for folder in self.root.glob("*/runs"))
        for folder in (*around, *inner):
            if (folder / "runs").is_dir() and (folder / "suites").is_dir():
                return f" Did you mean {str(folder)!r}?"
        return ""

    def require_writable(self) -> None:
        """Make the folders and write a file for a try. Raises StoreError."""
        # Called before the first run, so that no training is lost to a folder that is read only.
        runs = self.root / "runs"
        try:
            for name in ("runs", "suites", "fits"):
                make_folder(self.root / name)
            # On most systems the file has no name, so that nothing is left of it. It has bytes,
            # because a file system that is full takes empty files.
            with (
                writing(runs, _PROBE_BYTES),
                tempfile.TemporaryFile(prefix=".probe.", suffix=".tmp", dir=runs) as probe,
            ):
                probe.write(bytes(_PROBE_BYTES))
                probe.flush()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            remedy = "choose another folder with --out"
            if isinstance(error, NotWritten) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = f"{error.remedy}. Or {remedy}"
            raise StoreError(
                f"{self.root}: cannot write the records there ({reason}): {remedy}"
            ) from None
        self.place = Place.of(self.root)

    def require_ready(self, final: bool = False) -> None:
        """Raise unless the store may be written: it is the same folder, and the checks pass.

        Args:
            final: a result is to be written, and not a checkpoint.
        Raises: StoreError where the folder is not the one any more that was remembered; what a
            check raises.
        """
        if self.place is not None:
            self.place.require()
        for check in self._checks:
            check(final)

    @contextlib.contextmanager
    def writing_if(self, check: Callable[[bool], None]) -> Iterator[None]:
        """Call `check(final)` before anything is written within the block; see `require_ready`.

        What it raises keeps a run from being written.
        """
        self._checks.append(check)
        try:
            yield
        finally:
            self._checks.remove(check)

    def _require_own_folder(self, key: str) -> None:
        """Raise StoreError for the folder of a run that is a link.

        A store may come from somebody else, and lead to files that are not part of it.
        """
        folder = self.run_dir(key)
        if folder.is_symlink():
            raise StoreError(
                f"{folder}: is a link, and no run is written through one, because files outside "
                "the store could be replaced; put the folder itself there, or remove the link"
            )

    # ---- Runs -----------------------------------------------------------------------------------

    def run_dir(self, key: str) -> Path:
        """Return the folder of one run."""
        return self.root / "runs" / key

    def run_keys(self) -> list[str]:
        """Return the keys of all runs that ended."""
        found = []
        for folder in self.root.glob("runs/*"):
            # A process may have been killed before it could move the record to its place.
            if os.path.lexists(folder / RECORD) or (folder / NEW / RECORD).exists():
                found.append(folder.name)
        return sorted(found)

    def record_path(self, key: str) -> Path:
        """Return the place of a run's record, which need not exist."""
        return located(self.run_dir(key), RECORD)

    def check(self, key: str) -> RunFiles | None:
        """Check the files of a run, and warn of each that is damaged, once.

        Returns: None where there is no record. See `RunFiles` for the rest.
        Raises: StoreError for a store that cannot be read, or a record of a later version.
        """
        folder = self.run_dir(key)
        try:
            state = _state(folder)
            # A file is read again only if it has changed since: tables ask for records often.
            if key in self._checked and self._checked[key][0] == state:
                return self._checked[key][1]
            found = check_run(folder, key)
            # Another process may have written the run again between two of its files.
            if found is not None and found.damage and _state(folder) != state:
                found = check_run(folder, key)
        except OSError as error:
            raise StoreError(
                f"{error.filename or self.root}: cannot be read as a record store "
                f"({error.strerror})"
            ) from None

        self._checked[key] = state, found
        for damage in found.damage if found is not None else ():
            self._report(damage)
        return found

    def read_ahead(self, keys: Iterable[str]) -> None:
        """Check many runs at once, in several processes where that is faster. `check` knows them.

        What is damaged is left to `check`, and so is what cannot be read.
        """
        unknown = [key for key in keys if key not in self._checked]
        # To send the records costs a fifth of the time that it takes to read them.
        if not parallel.is_faster(len(unknown), cores=4):
            return
        for key, seen in zip(unknown, parallel.over(unknown, _seen, self.root), strict=True):
            if seen is not None:
                self._checked[key] = seen

    def forget_read(self) -> None:
        """Forget the records that were read. They are read again when they are asked for."""
        self._checked.clear()

    def read(self, key: str) -> RunRecord | None:
        """Return a record; None for one that is missing or damaged.

        What is damaged is reported once. It stays where it is until `write` renames it.

        Raises: as `check`.
        """
        found = self.check(key)
        return None if found is None else found.record

    def note(self, key: str) -> Note | None:
        """Return the note that the run's record was reproduced; None where there is none.

        One of an earlier record of the run is void. One that is damaged, or of another run, is
        reported once and ignored.
        """
        folder = self.run_dir(key)
        try:
            note = read_note(folder, key)
        except FileNotFoundError:
            return None
        except ValueError as error:
            self._report(Damage(folder / NOTE, Kind.FOREIGN_NOTE, str(error)))
            return None
        files = self.check(key)
        return note if files is not None and is_about(note, folder, files) else None

    def reproduced_under(self, key: str, code: str) -> bool:
        """Return whether the run's record was reproduced bit for bit by code of this hash."""
        note = self.note(key)
        return note is not None and note.outcome == Outcome.BITS and note.code == code

    def _report(self, damage: Damage) -> None:
        if damage in self._reported:
            return
        self._reported.add(damage)
        self.warn(f"{damage.path}: {damage.reason}; {damage.consequence}")

    def write(
        self,
        record: RunRecord,
        history: Sequence[Mapping[str, object]],
        predictions: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write a run that ended, in place of an older record of it.

        A process that is killed meanwhile leaves the old run or the new one, whole.

        Args:
            history: the metrics of each epoch.
            predictions: arrays by name, for predictions.npz.
        """
        folder = self.run_dir(record.key)
        with self.replacing_run(record.key) as staged:
            self._write_files(staged, folder, record, history, predictions)

        # A run that failed, for example because the disk was full, continues from its checkpoint.
        if record.status != "failed":
            with writing(folder):
                (folder / "checkpoint.pt").unlink(missing_ok=True)

    @contextlib.contextmanager
    def replacing_run(self, key: str) -> Iterator[Path]:
        """Yield an empty folder, whose files become those of the run when the block ends.

        The files in it are fsynced by the caller. A process that is killed meanwhile leaves the old
        run or the new one, whole. The files of a damaged record are kept under other names.
        """
        self.require_ready()
        self._require_own_folder(key)
        folder = self.run_dir(key)
        make_folder(folder)
        self._finish_moving(folder)
        self._set_aside_damaged(key)

        # Whole under another name first. The rename to NEW decides that this is the run now.
        staged = temporary_name(folder / NEW)
        try:
            with writing(folder):
                staged.mkdir()
            yield staged
            with writing(folder):
                sync_folder(staged)
            move(staged, folder / NEW)
        finally:
            remove(staged)
        self._finish_moving(folder)

    def _write_files(
        self,
        staged: Path,
        folder: Path,
        record: RunRecord,
        history: Sequence[Mapping[str, object]],
        predictions: Mapping[str, np.ndarray] | None,
    ) -> None:
        files: dict[str, Path] = {}
        if history:
            text = io.StringIO()
            # An epoch may lack a column: what is recorded on request may be asked for later.
            names = dict.fromkeys(itertools.chain.from_iterable(history))
            writer = csv.DictWriter(text, fieldnames=list(names))
            writer.writeheader()
            writer.writerows(history)
            files[HISTORY] = staged / HISTORY
            content = text.getvalue().encode()
            write_new(files[HISTORY], lambda file: file.write(content), folder / HISTORY)

        if predictions is not None:
            # Imported here, because tables read records and do without NumPy.
            import numpy as np

            # The stubs of numpy take a keyword for one of the options.
            arrays: dict[str, Any] = dict(predictions)
            files[PREDICTIONS] = staged / PREDICTIONS
            write_new(
                files[PREDICTIONS],
                lambda file: np.savez_compressed(file, **arrays),
                folder / PREDICTIONS,
            )

        payload = json_bytes(with_checksums(record.as_json(), files))
        write_new(staged / RECORD, lambda file: file.write(payload), folder / RECORD)

    def _finish_moving(self, folder: Path) -> None:
        """Move the files of a run that was written again to their places, the record last."""
        new = folder / NEW
        if new.is_symlink():
            # What it leads to would be moved here, out of its own place.
            self.set_aside(new, "a link in the place of a folder")
        if new.is_dir():
            with writing(folder):
                self._move_all(new, folder)

    def _move_all(self, new: Path, folder: Path) -> None:
        whole = (new / RECORD).exists()
        # Without a record the power failed between two moves. Its record is at its place already,
        # and what is still here belongs to it.
        listed = self._listed_in(new / RECORD) if whole else set(FILES)
        for name in FILES:
            if (folder / name).is_dir():
                self.set_aside(folder / name, "a folder in the place of a file")
            if (new / name).exists():
                os.replace(new / name, folder / name)
            elif name not in listed:
                # The old run had this file, and the new one has none.
                (folder / name).unlink(missing_ok=True)
        if whole:
            # After a power failure, too, the record must not be there without its files.
            sync_folder(folder)
            os.replace(new / RECORD, folder / RECORD)
        sync_folder(folder)
        new.rmdir()

    def _listed_in(self, record: Path) -> set[str]:
        """Return the names of the files that a record vouches for; all where it is damaged."""
        try:
            return listed_files(read_object(record))
        except ValueError:
            # It was damaged since. Whoever reads the record finds out.
            return set(FILES)

    def _set_aside_damaged(self, key: str) -> None:
        """Rename the files of a run whose record cannot be used: nothing is ever deleted."""
        found = self.check(key)
        if found is None or found.record is not None:
            return
        folder = self.run_dir(key)
        for name in (RECORD, *FILES):
            if os.path.lexists(folder / name):
                reason = "damaged record" if name == RECORD else "beside the damaged record"
                self.set_aside(folder / name, reason)

    def set_checkpoint_aside(self, key: str, reason: str) -> None:
        """Rename the checkpoint of a run, if it has one, so that the run begins anew."""
        path = self.run_dir(key) / "checkpoint.pt"
        if os.path.lexists(path):
            self.set_aside(path, reason)

    def set_aside(self, path: Path, reason: str) -> None:
        """Rename a file that cannot be used, so that it is kept and its run can be done again."""
        other = free_name(path, "corrupt")
        move(path, other)
        self.warn(f"{path}: {reason}; set aside as {other.name}")

    # ---- Plans ----------------------------------------------------------------------------------

    def plan_path(self, name: str) -> Path:
        """Return the place of a suite's plan, which need not exist."""
        return self.root / "suites" / f"{name}.json"

    def write_plan(self, plan: Mapping[str, object]) -> None:
        """Write the plan of a suite, in place of an older one of the same name.

        An older one that is damaged is kept under another name.

        Raises: LaterVersion where a later version of nlbench has written that plan.
        """
        self.require_ready()
        name = str(plan["suite"])
        try:
            self.plan(name)
        except LaterVersion:
            raise
        except StoreError:
            self.set_aside(self.plan_path(name), "damaged plan")
        payload = json_bytes(with_checksum(stated(plan)))
        write_atomic(self.plan_path(name), lambda file: file.write(payload))

    def plan(self, name: str) -> dict[str, Any] | None:
        """Return the plan of one suite; None where there is none.

        Raises: StoreError for a plan that cannot be read or is damaged.
        """
        path = self.plan_path(name)
        try:
            return check_plan(read_object(path), name)
        except FileNotFoundError:
            return None
        except LaterVersion as error:
            raise LaterVersion(f"{path}: {error}") from None
        except OSError as error:
            reason = f"it cannot be read, {error.strerror}"
        except (ValueError, RecursionError) as error:
            reason = str(error)
        raise StoreError(
            f"{path}: damaged plan: {reason}. `nlbench run` of its suite writes it again; the "
            "records stay as they are"
        )

    def plan_of(self, suite: str) -> dict[str, Any]:
        """Return the plan of a suite that a user named.

        Raises: SuiteError for a suite that is unknown, StoreError for a damaged plan.
        """
        # By its name first: a plan that is damaged must not be called unknown.
        return self.plan(suite) or look_up(f"suite of {self.root}", suite, self.plans())

    def plans(self) -> dict[str, dict[str, Any]]:
        """Return the plan of every suite that was run into this store, by name.

        Damaged plans are left out; `damaged_plans` then names them, and the store warns of each.

        Raises: StoreError when there is none that can be read.
        """
        plans = {}
        self.damaged_plans = []
        for path in sorted(self.root.glob("suites/*.json")):
            try:
                plan = self.plan(path.stem)
            except StoreError as error:
                self.damaged_plans.append(str(error))
                continue
            if plan is not None:
                plans[path.stem] = plan

        if not plans and self.damaged_plans:
            raise StoreError("\n".join(self.damaged_plans))
        if not plans:
            raise StoreError(
                f"{self.root}: has no results of any suite; "
                f"`nlbench run SUITE --out {self.root}` makes them.{self._near_miss()}"
            )
        for line in self.damaged_plans:
            self.warn(line)
        return plans

    def plan_names(self) -> list[str]:
        """Return the name of every suite that was run into this store, damaged plans included."""
        return sorted(path.stem for path in self.root.glob("suites/*.json"))

    def keys_of_plans(self, names: Sequence[str]) -> set[str]:
        """Return the keys of the runs in these plans. Raises StoreError for a damaged plan."""
        keys = set()
        for name in names:
            plan = self.plan(name)
            keys |= {cell["key"] for cell in plan["cells"]} if plan is not None else set()
        return keys

    def forget(self, name: str) -> Path:
        """Drop the plan of a suite, and no record. Returns the name that the plan's file has now.

        Its table is no longer printed. Renaming the file again undoes it.
        """
        path = self.plan_path(name)
        other = free_name(path, "forgotten")
        move(path, other)
        return other

    # ---- Locks ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[bool]:
        """Hold the run `key` against other processes; see `hold`.

        Tidies up after a process that was killed: removes the temporary files in the run's folder,
        and moves the files of a run that was written again to their places.
        """
        self.require_ready()
        self._require_own_folder(key)
        folder = self.run_dir(key)
        with hold(folder / "lock", leftovers=".*.tmp", warn=self.warn) as mine:
            if mine:
                self._finish_moving(folder)
            yield mine

    def holder(self, key: str) -> str:
        """Describe the process that holds a run; empty where nobody is named."""
        return holder_of(self.run_dir(key) / "lock")

    def warn_of_holders(self, keys: Sequence[str]) -> None:
        """Warn of the processes that hold these runs, once, and of the first few only."""
        for key in keys:
            holder = self.holder(key)
            if len(self._named_locks) < _MOST_NAMED and key not in self._named_locks and holder:
                self._named_locks.add(key)
                self.warn(f"{self.run_dir(key) / 'lock'}: held by {holder}")

    def release(self, key: str, pid: int) -> None:
        """Clear the lock that the dead process `pid` of this host left.

        On a file system without flock it would otherwise be valid until its heartbeat is too old.
        """
        release(self.run_dir(key) / "lock", pid)
