"""Texts and data of other people in HTML, so that they stay texts and data."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nlbench.errors import on_one_line, printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# Where the notes below a table have code, or the address of a source.
_PARTS = re.compile(r"`([^`]+)`|(https?://[^\s<>\"]+[^\s<>\".,;:)\]])")

# A page in which `</script>` or `<!--` cannot appear within the data. As JSON the text is the same.
_ESCAPED = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def environment() -> Environment:
    """Return jinja2's environment for the templates of this package.

    Whatever a template prints is escaped for HTML, and characters that steer a terminal or reorder
    text are shown as escapes.
    """
    # Imported here, because `nlbench --help` does without it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("nlbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_final,
    )
    made.filters["note"] = note
    made.filters["data"] = data
    return made


def _final(value: object) -> object:
    from markupsafe import Markup

    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def note(text: str) -> Markup:
    """Return a note as HTML: what stands between backticks is code, an address is a link."""
    from markupsafe import Markup

    text = on_one_line(text)
    parts, end = [Markup()], 0
    for match in _PARTS.finditer(text):
        parts.append(Markup("{}").format(text[end : match.start()]))
        code, address = match.groups()
        form = Markup("<code>{0}</code>") if code else Markup('<a href="{0}">{0}</a>')
        parts.append(form.format(code or address))
        end = match.end()
    parts.append(Markup("{}").format(text[end:]))
    return Markup().join(parts)


def data(value: object) -> Markup:
    """Return a value as JSON that may stand in a script element of HTML."""
    from markupsafe import Markup

    text = json.dumps(_printable(value), separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(_ESCAPED))


def _printable(value: object) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _printable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(entry) for entry in value]
    # JSON has no such numbers. nlbench writes none either, but a store may come from anywhere.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def digest(script: str) -> str:
    """Return the hash by which a content security policy knows an inlined script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
