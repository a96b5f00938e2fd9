"""Write a page to a file that the user names."""

from __future__ import annotations

import os
from pathlib import Path

from nlbench.errors import UserError
from nlbench.files import write_atomic

_ENDINGS = (".html", ".htm")


def require_name(path: Path) -> None:
    """Raise UserError for a name that is not that of a page."""
    if path.is_dir():
        raise UserError(f"--to {path}: is a folder; name a file in it, such as {path}/report.html")
    if path.suffix.lower() not in _ENDINGS:
        raise UserError(f"--to {path}: the name must end in {' or '.join(_ENDINGS)}")


def write_page(path: Path, text: str) -> None:
    """Write a page, in place of an older file.

    Raises: UserError where that cannot be.
    """
    require_name(path)
    content = text.encode()
    try:
        write_atomic(path, lambda file: file.write(content))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"--to {path}: cannot be written ({reason})") from None
