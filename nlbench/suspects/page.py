"""Write ranked examples as one HTML page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench.data.base import Dataset
from nlbench.errors import DataError, printable
from nlbench.suspects import pictures
from nlbench.suspects.listing import (
    agreements,
    counted,
    explanations,
    file_of,
    has_rows,
    heading_of,
    row_of,
    shown_score,
    suggested_of,
    title_of,
)
from nlbench.suspects.ranking import Ranking

if TYPE_CHECKING:
    from nlbench.suspects.quality import QualityTable

_TEMPLATE = "page.html.j2"

# Pictures of more examples would make a page of over 10 MB.
MOST_ON_PAGE = 300


@dataclass(frozen=True)
class _Cell:
    text: str
    number: bool = False


@dataclass(frozen=True)
class _Line:
    index: int
    cells: list[_Cell]
    picture: str = ""
    small: bool = False


@dataclass(frozen=True)
class _Part:
    """One list on the page.

    Attributes:
        notes: sentences above the table.
        below: sentences below it, which explain the columns.
        names: the headings of the cells, without that of the picture.
    """

    title: str
    notes: list[str]
    below: list[str]
    headings: list[str]
    names: list[str]
    lines: list[_Line]
    pictures: bool


def render(
    rankings: Sequence[Ranking],
    top: int | None,
    data_of: Callable[[Ranking], Dataset | None],
    *,
    notes: Sequence[str] = (),
    quality: QualityTable | None = None,
) -> str:
    """Return the page. Names of files and classes are escaped.

    Args:
        top: the number of examples of each list; None for as many as are estimated to be wrong, and
            at most MOST_ON_PAGE.
        data_of: returns the data of a list; None where it is not there, and its pictures are left
            out.
        notes: sentences above the lists.
        quality: the comparison with the true labels, where it was asked for.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        # A control character is no part of HTML, and could hide what a file is called.
        finalize=_sound,
    )
    parts = [_part(ranking, top, data_of(ranking)) for ranking in rankings]
    title = f"{rankings[0].labelling.suite}: suspicious training labels"
    return environment.get_template(_TEMPLATE).render(
        title=title, notes=notes, parts=parts, quality=quality
    )


def _sound(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def _part(ranking: Ranking, top: int | None, data: Dataset | None) -> _Part:
    count = min(ranking.estimated, MOST_ON_PAGE) if top is None else top
    order = [int(i) for i in ranking.order[:count]]
    notes = [counted(ranking), *ranking.notes]
    if len(order) < ranking.estimated:
        notes.append(f"The first {len(order):,} are shown. The CSV list has all.")

    with_pictures = data is not None
    if data is not None:
        try:
            pictures.require_pictures(data)
        except DataError as error:
            notes.append(f"No pictures: {error}.")
            with_pictures = False

    names = ["rank", "index", "row", "file", "given", "suggested", "agreement", "rows"]
    names.append(heading_of(ranking))
    # Images in memory have no files.
    if ranking.examples.files is None:
        names.remove("file")
    if not has_rows(ranking):
        names.remove("row")
    lines = []
    for rank, i in enumerate(order, 1):
        cells = _cells(ranking, i, rank)
        shown = data if with_pictures else None
        lines.append(_line(int(ranking.examples.index[i]), cells, shown))
    headings = ["picture", *names] if with_pictures else names
    below = explanations(ranking)
    return _Part(title_of(ranking), notes, below, headings, names, lines, with_pictures)


def _cells(ranking: Ranking, i: int, rank: int) -> list[_Cell]:
    labelling, examples = ranking.labelling, ranking.examples
    cells = [_Cell(str(rank), True), _Cell(str(examples.index[i]), True)]
    if has_rows(ranking):
        cells.append(_Cell(row_of(ranking, i), True))
    if examples.files is not None:
        cells.append(_Cell(file_of(ranking, i)))
    cells.append(_Cell(labelling.in_words(int(examples.given[i]))))
    cells.append(_Cell(suggested_of(ranking, i) or "-"))
    cells += [_Cell(text, True) for text in agreements(ranking, i)]
    cells.append(_Cell(shown_score(ranking, i), True))
    return cells


def _line(index: int, cells: list[_Cell], data: Dataset | None) -> _Line:
    if data is None:
        return _Line(index, cells)
    try:
        image = pictures.picture(data, index)
    # One damaged file does not keep the others from being seen.
    except DataError:
        return _Line(index, cells)
    small = max(image.size) < pictures.SIZE
    return _Line(index, cells, pictures.data_uri(image), small)
