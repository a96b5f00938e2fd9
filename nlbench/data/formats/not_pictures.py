"""Find listed files that are no pictures by their first bytes, before anything is decoded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from nlbench.data.cache import read_json, write_json
from nlbench.data.formats.class_folders import counted, starts_as_picture
from nlbench.data.formats.copies import sizes_and_state
from nlbench.errors import DataError


def about_not_pictures(paths: Sequence[str], cache_dir: Path) -> list[str]:
    """Return a warning about empty files, and files whose first bytes are those of no picture.

    The result is kept in `cache_dir` until the name, size or time of a file changes. A picture that
    is damaged further on is found when it is decoded.
    """
    sizes, state = sizes_and_state(paths)
    entry = cache_dir / f"no-pictures-{state}.json"
    try:
        wrong = [int(i) for i in read_json(entry)]
    except (OSError, ValueError, TypeError):
        wrong = []
        for i, path in enumerate(paths):
            if sizes[i] == 0 or (sizes[i] > 0 and not _is_picture(path)):
                wrong.append(i)
        # The result saves time and nothing else.
        with contextlib.suppress(OSError):
            cache_dir.mkdir(parents=True, exist_ok=True)
            write_json(entry, wrong)
    if not wrong:
        return []

    empty = sum(sizes[i] == 0 for i in wrong)
    kinds = f"{empty} empty, {len(wrong) - empty} of other content"
    return [
        f"{len(wrong)} of {counted(len(paths), 'picture')} cannot be decoded, by their first bytes "
        f"({kinds}), the first: {paths[wrong[0]]}. A run fails at them: get them again, or take "
        f"them out; `nlbench data check FOLDER` names all"
    ]


def _is_picture(path: str) -> bool:
    """Return whether a file begins as a picture does; true for one that may not be read."""
    try:
        if starts_as_picture(path):
            return True
    except DataError:
        return True

    # Pillow knows more kinds, and reads no more than the first bytes here.
    from PIL import Image

    with contextlib.suppress(Exception), Image.open(path):
        return True
    return not os.access(path, os.R_OK)
