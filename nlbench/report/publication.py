"""`nlbench publish`: a folder that is a dataset for Hugging Face and a static site.

Nothing is uploaded.

    records.parquet    a line for each record
    epochs.parquet     a line for each epoch of each run
    README.md          the card, with the tables
    index.html         the page of `nlbench report`
    .nojekyll          keeps GitHub Pages from leaving files out
    publication.json   what nlbench has written here, so that it can be written again
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nlbench import registry
from nlbench.errors import UserError
from nlbench.files import write_atomic
from nlbench.report import card, frames, page
from nlbench.results import notes

if TYPE_CHECKING:
    from nlbench.results.store import Store

MARKER = "publication.json"
CARD, RECORDS, EPOCHS, INDEX = "README.md", "records.parquet", "epochs.parquet", "index.html"
_NO_JEKYLL = ".nojekyll"

# What a clone of an empty repository has. None of it is touched.
_OF_GIT = {".git", ".gitattributes", ".gitignore"}


@dataclass(frozen=True)
class Publication:
    """What was written.

    Attributes:
        card_stays: whether the card was changed by hand, and was left as it is.
    """

    folder: Path
    files: list[str]
    records: int
    card_stays: bool


def publish(
    store: Store,
    folder: Path,
    suite_name: str | None = None,
    *,
    licence: str = "unknown",
    methods: Mapping[str, registry.MethodFile] | None = None,
) -> Publication:
    """Write the publication of one suite of a store, or of all of them.

    Args:
        licence: as Hugging Face names it, for example "cc-by-4.0".

    Raises: UserError for a folder that lies in the store, holds anything else than an earlier
        publication, or cannot be written; StoreError and SuiteError as `page.render`.
    """
    card.check_licence(licence)
    _require_outside(folder, store.root)
    earlier = _earlier(folder)
    if methods is None:
        methods = registry.method_files()
    plans = page.plans_of(store, suite_name)
    records = frames.records(store, plans, everything=suite_name is None)
    epochs = frames.epochs(store, list(records["key"]))
    written = {
        RECORDS: _parquet(records),
        EPOCHS: _parquet(epochs),
        INDEX: page.render(store, suite_name, methods).encode(),
        _NO_JEKYLL: b"",
    }
    facts = card.Facts(list(plans), len(records), len(epochs), licence)
    written[CARD] = card.render(store, suite_name, methods, facts).encode()

    card_stays = _was_changed(folder / CARD, earlier)
    known = notes.once([*earlier, _digest(written[CARD])])
    if card_stays:
        del written[CARD]
    marker = {"made by": "nlbench publish", "cards": known, "files": sorted(written)}
    _write(folder, {MARKER: _json(marker), **written})
    return Publication(folder, sorted(written), len(records), card_stays)


# ---- The folder ----------------------------------------------------------------------------------


def _require_outside(folder: Path, root: Path) -> None:
    """Raise UserError for a folder in the store, whose files would then be results and copies."""
    if folder.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{folder}: lies in {root}, the folder of the results; name a folder outside of it"
        )


def _earlier(folder: Path) -> list[str]:
    """Return the digests of the cards that an earlier publication has written into a folder.

    Raises: UserError for a folder with other things in it.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: is no folder; name one that is new or empty")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not names - _OF_GIT:
        return []
    try:
        values = json.loads((folder / MARKER).read_bytes())
        cards = values["cards"]
    except FileNotFoundError:
        first = ", ".join(sorted(names - _OF_GIT)[:3])
        raise UserError(
            f"{folder}: is not empty ({first}) and holds no earlier publication of nlbench; name "
            "a folder that is new or empty"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{folder / MARKER}: cannot be read as the list of an earlier publication; name "
            "another folder, or empty this one"
        ) from None
    return [str(digest) for digest in cards] if isinstance(cards, list) else []


def _was_changed(path: Path, earlier: list[str]) -> bool:
    """Return whether somebody has changed the card since nlbench wrote it."""
    try:
        return _digest(path.read_bytes()) not in earlier
    except OSError:
        return False


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files, the first one first: without it the others would be somebody else's."""
    for name, content in files.items():
        try:
            write_atomic(folder / name, partial(_copy, content))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise UserError(f"{folder / name}: cannot be written ({reason})") from None


def _copy(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


# ---- Bytes ---------------------------------------------------------------------------------------


def _parquet(frame: Any) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file, index=False)
    return file.getvalue()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
