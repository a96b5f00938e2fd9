"""Say what of a dataset is missing, where nlbench looked for it, and where to get it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from nlbench.data.base import Found, Info, Source
from nlbench.errors import DataMissing


def require(info: Info, sources: Sequence[Source], found: Found, data_dir: Path) -> None:
    """Raise DataMissing, with the text of `explain`, unless everything is there."""
    if found.missing:
        raise DataMissing(explain(info, sources, found, data_dir))


def explain(info: Info, sources: Sequence[Source], found: Found, data_dir: Path) -> str:
    """Return in words what is there or missing, and which file from which page goes where."""
    if not found.missing:
        folders = list(dict.fromkeys(str(path.parent) for path in found.paths))
        if not folders:
            return f"{info.name}: there, needs no files"
        return f"{info.name}: there, in {' and '.join(folders)}"

    # Nothing can be downloaded, as for a folder of the user's own images.
    if not sources:
        return f"{info.name}: " + "\n  ".join(found.missing)

    lines = [f"{info.name}: missing in {data_dir}: {'; '.join(found.missing)}"]
    lines.append(f"  {_looked(found, data_dir)}")

    # One paragraph for all files of one page under one licence.
    needed = [source for source in sources if source.file in found.needs]
    for _, group in itertools.groupby(needed, lambda source: (source.home, source.licence)):
        lines += _how_to_get(list(group), data_dir)

    if any(source.url for source in needed):
        lines.append(f"  or let nlbench do it: nlbench data fetch {info.name}")
    return "\n".join(lines)


def megabytes(size: int) -> str:
    """Return a size in bytes in words; an empty text where it is unknown (0)."""
    if not size:
        return ""
    return f"{size / 1e6:.1f} MB"


def _looked(found: Found, data_dir: Path) -> str:
    if not data_dir.is_dir():
        return "there is no such folder; --data-dir or NLBENCH_DATA names another data directory"

    inner = [str(place.relative_to(data_dir)) for place in found.looked if place != data_dir]
    if not inner:
        return "looked in it"
    return f"looked in it and in its folders {', '.join(inner)}"


def _how_to_get(files: Sequence[Source], data_dir: Path) -> list[str]:
    """Return the lines about files that share their page and licence."""
    first = files[0]

    if len(files) > 1:
        licence = f" ({first.licence})" if first.licence else ""
        heading = f"  get from {first.home}{licence}, and put each as it is at"
        return [heading, *(f"    {data_dir / source.goes_to}" for source in files)]

    facts = ", ".join(filter(None, (megabytes(first.size), first.licence)))
    if facts:
        facts = f" ({facts})"

    # What is unpacked into a folder keeps its own names; a single file must have the right one.
    into = "it into" if first.goes_to.endswith("/") else "it, as it is, at"
    return [
        f"  get {first.file}{facts} from {first.home}",
        f"    and put {into} {data_dir / first.goes_to}",
    ]
