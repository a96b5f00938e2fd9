"""The note that a run was reproduced: OUT/runs/KEY/reproduced.json, beside the record.

A record is never rewritten. So what `nlbench reproduce` has found lies in a file of its own: which
record it compared, by its checksum, with which code it trained the run again, and how well the
numbers agree. After the run is trained again, its record has another checksum, and the note is
void.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlbench.errors import shown
from nlbench.files import digest, write_atomic
from nlbench.results.integrity import FILES, RunFiles, checksum_of, located, read_object

NOTE = "reproduced.json"

# The version of the note's JSON.
SCHEMA = 1

_CHECKSUM = "checksum"


class Outcome(StrEnum):
    """How well a run was reproduced, as its note says it."""

    BITS = "bit for bit"
    WITHIN = "within the tolerance"


class _Part(BaseModel):
    # A note of a later version may have more keys.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Compared(_Part):
    """What was compared: how many epochs, and the names of columns, arrays and metrics."""

    epochs: int
    columns: list[str]
    arrays: list[str]
    metrics: list[str]


class Accuracies(_Part):
    """Test accuracies after the last epoch, in [0, 1], and how far apart they may be."""

    recorded: float
    again: float
    at_most: float


class Note(_Part):
    """A run that was reproduced.

    Attributes:
        record: the checksum of the record that was compared.
        files: the checksums of history.csv and predictions.npz, where the run has them.
        code: hash of the code that trained the run again.
        outcome: "bit for bit" or "within the tolerance".
        accuracies: null where the numbers are the same, and for runs that diverged.
        environment: of the training that was compared with the record.
        date: when it was compared, in UTC.
    """

    version: Annotated[int, Field(alias="schema", ge=1)] = SCHEMA
    key: str
    record: str
    files: dict[str, str]
    code: str
    outcome: str
    compared: Compared
    accuracies: Accuracies | None
    environment: dict[str, Any]
    date: str


# ---- Files ---------------------------------------------------------------------------------------


def checksums_of_files(folder: Path) -> dict[str, str]:
    """Return the checksums of history.csv and predictions.npz of a run, where it has them."""
    found = {}
    for name in FILES:
        path = located(folder, name)
        if path.exists():
            found[name] = f"sha256:{digest(path, 'sha256')}"
    return found


def write_note(folder: Path, note: Note) -> None:
    """Write the note of the run in `folder`, whole or not at all."""
    values = note.model_dump(mode="json", by_alias=True)
    values[_CHECKSUM] = checksum_of(values)
    text = json.dumps(values, indent=1, sort_keys=True, allow_nan=False)
    write_atomic(folder / NOTE, lambda file: file.write(f"{text}\n".encode()))


def read_note(folder: Path, key: str) -> Note:
    """Read the note of the run `key`, which lies in `folder`.

    Raises: FileNotFoundError where there is none; ValueError with the reason for one that is
        damaged, of another run or of a later version.
    """
    try:
        values = read_object(folder / NOTE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None

    stated = values.pop(_CHECKSUM, None)
    try:
        changed = stated != checksum_of(values)
    except (ValueError, RecursionError):
        changed = True
    if changed:
        raise ValueError("it was changed after it was written (its checksum does not fit)")
    version = values.get("schema")
    if isinstance(version, int) and version > SCHEMA:
        raise ValueError(f"a later version of nlbench wrote it (schema {version})")
    try:
        note = Note.model_validate(values)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        if detail["type"] == "missing":
            raise ValueError(f"it has no {place}") from None
        raise ValueError(f"{place} cannot be {shown(detail['input'])}") from None
    if note.key != key:
        raise ValueError(f"it is the note of another run, {note.key}")
    return note


def is_about(note: Note, folder: Path, files: RunFiles) -> bool:
    """Return whether a note is about the files that the run in `folder` has now."""
    if files.record is None or note.record != files.checksum:
        return False
    # A record vouches for the files beside it. One of nlbench 0.1 has no checksums.
    return files.checked or note.files == checksums_of_files(folder)
