"""Tell whether the files of a run are those that were written, and what is wrong with them.

`check_run` looks at one folder OUT/runs/KEY and returns its record, where it can be used, with a
list of everything that is wrong. Whoever reads a run asks this function.

A record holds the checksums of the run's files, itself included:

    "checksums": {"record": "sha256:...", "history.csv": "sha256:...", "predictions.npz": "..."}

That of the record is over its values and not over its bytes, so that a change of the layout of the
text is no damage. A record that nlbench 0.1 wrote has no checksums, and is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from nlbench.errors import shown
from nlbench.files import digest, read_regular
from nlbench.plan.spec import key_of
from nlbench.results.metrics import METRICS
from nlbench.results.record import RunRecord

RECORD = "record.json"
HISTORY = "history.csv"
PREDICTIONS = "predictions.npz"

# The files of a run that a record vouches for.
FILES = (HISTORY, PREDICTIONS)

# A run that is written again: the whole new files, until they are moved to their places.
NEW = ".new"

_CHECKSUMS = "checksums"

# A plan of 100,000 runs has a tenth of it. A file with a hole in it can claim any size.
_MOST_BYTES = 1 << 28


class Kind(StrEnum):
    """The kinds of damage, by name."""

    # The record cannot be used. It counts as missing, and its run is trained again.
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    OTHER_RUN = "other run"
    OUT_OF_RANGE = "out of range"
    # The record can be used.
    INCOMPLETE = "incomplete"
    MISSING_FILE = "missing file"
    CHANGED_FILE = "changed file"
    FOREIGN_FILE = "foreign file"
    FOREIGN_NOTE = "foreign note"


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with the files of a run."""

    path: Path
    kind: Kind
    reason: str

    @property
    def consequence(self) -> str:
        """What becomes of it, for a warning."""
        if self.path.name == RECORD and self.kind != Kind.INCOMPLETE:
            return "it counts as missing, and its run will be trained again"
        if self.path.name == RECORD:
            return "its numbers are still used"
        if self.kind == Kind.FOREIGN_NOTE:
            return "it is ignored"
        return "the record beside it is used, but not this file"

    @property
    def text(self) -> str:
        """The file's place in the store, and what is wrong with it, for a note."""
        return f"runs/{self.path.parent.name}/{self.path.name}: {self.reason}"


@dataclass(frozen=True)
class RunFiles:
    """What was found in the folder of a run.

    Attributes:
        record: None where there is none that can be used.
        damage: everything that is wrong. Without a record the first one is the reason.
        checked: whether the record has checksums. One of nlbench 0.1 has none.
        checksum: of the record that can be used, also where it does not hold one.
    """

    record: RunRecord | None = None
    damage: list[Damage] = field(default_factory=list)
    checked: bool = True
    checksum: str = ""


# ---- Checksums ----------------------------------------------------------------------------------


def checksum_of(value: Mapping[str, object]) -> str:
    """Return the checksum of a JSON object: of its values, and not of the layout of its text."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def with_checksums(values: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the values of a record with the checksums of `files`, by name, and its own."""
    sums = {name: _checksum_of_file(path) for name, path in files.items()}
    complete = {**values, _CHECKSUMS: sums}
    return {**values, _CHECKSUMS: {**sums, "record": checksum_of(complete)}}


def listed_files(values: Mapping[str, Any]) -> set[str]:
    """Return the names of the files that a record vouches for."""
    return set(values.get(_CHECKSUMS, {})) & set(FILES)


def _checksum_of_file(path: Path) -> str:
    return f"sha256:{digest(path, 'sha256')}"


# ---- JSON ---------------------------------------------------------------------------------------


def json_bytes(value: Mapping[str, object]) -> bytes:
    """Return an object as the store writes it: equal values give equal bytes."""
    # NaN is refused, because JSON has none.
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    return (text + "\n").encode()


def read_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file of the store.

    Raises: OSError; ValueError for text that is no JSON object, with the reason.
    """
    content = read_regular(path, _MOST_BYTES)
    try:
        values = json.loads(content, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8") from None
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number in JSON")


# ---- One run ------------------------------------------------------------------------------------


def located(folder: Path, name: str) -> Path:
    """Return the place of one of a run's files: its own, or where it waits to be moved there."""
    # A process that was killed while it moved the files has left whole ones there.
    waiting = folder / NEW / name
    return waiting if waiting.exists() else folder / name


def places(folder: Path) -> dict[str, Path]:
    """Return the places of a run's files by name; see `located`."""
    names = (RECORD, *FILES)
    # Seldom there. One look for all files counts where the folder is on another machine.
    if not (folder / NEW).exists():
        return {name: folder / name for name in names}
    return {name: located(folder, name) for name in names}


def check_run(folder: Path, key: str) -> RunFiles | None:
    """Check the files of a run; see `RunFiles`.

    Args:
        folder: OUT/runs/KEY.
        key: the run's key, which the record must have.
    Returns: None where there is no record.
    Raises: StoreError for a record of a later version of nlbench; PermissionError for one that this
        user may not read.
    """
    place = places(folder)

    def unusable(kind: Kind, reason: str) -> RunFiles:
        return RunFiles(None, [Damage(folder / RECORD, kind, reason)])

    try:
        values = read_object(place[RECORD])
    except FileNotFoundError:
        return None
    except PermissionError:
        # The record may be whole, so its run must not be trained again.
        raise
    except OSError as error:
        return unusable(Kind.UNREADABLE, f"it cannot be read ({error.strerror})")
    except ValueError as error:
        return unusable(Kind.UNREADABLE, f"it is not a record ({error})")

    sums = values.pop(_CHECKSUMS, None)
    try:
        reason = _record_is_changed(values, sums)
        if reason:
            return unusable(Kind.CHANGED, reason)
        # Taken before a record of an earlier version is brought to this one.
        checksum = checksum_of(values) if sums is None else sums["record"]
        record = RunRecord.from_values(values)
        if record.key != key or key_of(record.spec) != key:
            return unusable(Kind.OTHER_RUN, _whose(record, key))
    except ValidationError as error:
        return unusable(Kind.UNREADABLE, _in_words(error))
    except (ValueError, RecursionError) as error:
        return unusable(Kind.UNREADABLE, f"it is not a record ({error})")

    reason = next(_out_of_range(record), "")
    if reason:
        return unusable(Kind.OUT_OF_RANGE, reason)
    damage: list[Damage] = []
    if sums is None:
        damage += _incomplete(record, folder)
    else:
        damage += _wrong_files(folder, place, sums)
    return RunFiles(record, damage, checked=sums is not None, checksum=checksum)


def _in_words(error: ValidationError) -> str:
    """Describe the first value that a record cannot have."""
    detail = error.errors()[0]
    # A part and a key in it. What follows are the types that the value could have had.
    place = ".".join(map(str, detail["loc"][:2]))
    if detail["type"] == "missing":
        return f"it has no {place}"
    return f"{place} cannot be {shown(detail['input'])}"


def _record_is_changed(values: Mapping[str, Any], sums: object) -> str:
    """Return why the record is not the one that was written, or an empty string."""
    if sums is None:
        return ""
    if not isinstance(sums, dict):
        return "its checksums are damaged"

    files = {name: value for name, value in sums.items() if name != "record"}
    if sums.get("record") != checksum_of({**values, _CHECKSUMS: files}):
        return "it was changed after it was written (its checksum does not fit)"
    return ""


def _whose(record: RunRecord, key: str) -> str:
    """Describe a record that is not the one of the run `key`."""
    own = key_of(record.spec)
    if record.key == own:
        method, seed = record.spec.get("method"), record.spec.get("seed")
        return f"it is the record of another run, {own} ({method}, seed {seed}), and not of {key}"
    return f"its spec belongs to the run {own}, and not to {key}"


def _out_of_range(record: RunRecord) -> Iterator[str]:
    """Yield what is wrong with the values of a record."""
    shares = {metric.key for metric in METRICS.values() if metric.is_share}
    for name, value in record.metrics.items():
        if value is None:
            continue
        # Python has integers that no float can hold.
        if abs(value) > sys.float_info.max or not math.isfinite(value):
            yield f"metrics.{name} must be finite, got {shown(value)}"
        elif name in shares and not 0 <= value <= 1:
            yield f"metrics.{name} must be from 0 to 1, got {value:g}"
        elif name.endswith("_epoch") and (value < 0 or value != int(value)):
            yield f"metrics.{name} must be an epoch, counted from 0, got {value:g}"

    for name, rate in record.noise.items():
        if name.startswith("noise_rate") and isinstance(rate, float) and not 0 <= rate <= 1:
            yield f"noise.{name} must be from 0 to 1, got {rate:g}"

    if record.status == "done" and record.metrics.get("last") is None:
        yield "metrics.last is missing, which every finished run has"


def _incomplete(record: RunRecord, folder: Path) -> Iterator[Damage]:
    """Yield the parts that a record without checksums must have, and lacks."""
    missing = [name for name in ("device", "precision") if name not in record.environment]
    if missing:
        reason = f"environment lacks {' and '.join(missing)}"
        yield Damage(folder / RECORD, Kind.INCOMPLETE, reason)


def _wrong_files(
    folder: Path, place: Mapping[str, Path], sums: Mapping[str, Any]
) -> Iterator[Damage]:
    """Yield history.csv and predictions.npz where they are not those that the record names."""
    for name in FILES:
        path, own = place[name], folder / name
        if name not in sums:
            # While a run is written again, a file of the old one may still lie there.
            if path.exists() and not (folder / NEW).exists():
                reason = "the run has no such file, so it belongs to another run"
                yield Damage(own, Kind.FOREIGN_FILE, reason)
            continue

        try:
            found = _checksum_of_file(path)
        except FileNotFoundError:
            yield Damage(own, Kind.MISSING_FILE, "it is missing")
        except OSError as error:
            reason = f"it cannot be read ({error.strerror})"
            yield Damage(own, Kind.CHANGED_FILE, reason)
        else:
            if found != sums[name]:
                reason = "it was changed after it was written (its checksum does not fit)"
                yield Damage(own, Kind.CHANGED_FILE, reason)
