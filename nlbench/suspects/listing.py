"""Print ranked examples as CSV, for programs and for whoever confirms labels, and as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nlbench.files import write_new
from nlbench.results.formats import csv_name, markdown
from nlbench.suspects.ranking import NONE, UNKNOWN_ROW, Ranking
from nlbench.suspects.scores import SCORES

# The columns that `nlbench relabel` reads.
INDEX, ROW, FILE, GIVEN, CONFIRMED = "index", "row", "file", "given", "confirmed"

# What stands in the column `row` where a list has rows and nobody knows them.
UNKNOWN = "unknown"

COLUMNS = (
    "suite",
    "condition",
    "seeds",
    "rank",
    INDEX,
    ROW,
    FILE,
    GIVEN,
    "suggested",
    "suspect",
    "suspicion",
    "agreement",
    "runs",
    "rows_agreement",
    "rows",
    *SCORES,
    # For the label that a person has found right. Last, so that it is easily filled in.
    CONFIRMED,
)

# So many lines are printed of one list, and so many of each where there are several.
MOST_PRINTED, MOST_OF_SEVERAL = 20, 5


def as_csv(rankings: Sequence[Ranking], top: int | None) -> str:
    """Return the CSV text. Shares are in [0, 1], and a value that is not known is empty.

    Args:
        top: the number of examples of each list; None for all.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for ranking in rankings:
        labelling = ranking.labelling
        seeds = " ".join(map(str, labelling.seeds))
        first = [csv_name(labelling.suite), csv_name(labelling.title), seeds]
        for rank, i in enumerate(ranking.order[:top], 1):
            writer.writerow([*first, rank, *_cells(ranking, int(i), rank), ""])
    return text.getvalue()


def _cells(ranking: Ranking, i: int, rank: int) -> Iterator[object]:
    """Yield the cells from `index` to the scores."""
    examples, labelling = ranking.examples, ranking.labelling
    yield int(examples.index[i])
    yield row_of(ranking, i)
    yield csv_name(file_of(ranking, i))
    yield csv_name(labelling.in_words(int(examples.given[i])))
    yield csv_name(suggested_of(ranking, i))
    yield "yes" if rank <= ranking.estimated else "no"
    yield _number(ranking.suspicion[i])
    yield _number(ranking.agreement[i])
    yield int(ranking.runs[i])
    yield _number(ranking.row_agreement[i])
    yield int(ranking.all_rows[i])
    for name in SCORES:
        values = ranking.values.get(name)
        yield "" if values is None else _number(values[i])


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def file_of(ranking: Ranking, i: int) -> str:
    """Return the file of an example, with marks for bytes that are no text; "" where it has none.

    Args:
        i: its position in the arrays of the ranking.
    """
    files = ranking.examples.files
    if files is None:
        return ""
    # Surrogates stand for bytes that are no UTF-8, and cannot be written as UTF-8.
    return str(files[i]).encode("utf-8", "backslashreplace").decode()


def row_of(ranking: Ranking, i: int) -> str:
    """Return the row of an example, UNKNOWN, or "" where its file or index says where it is.

    Args:
        i: its position in the arrays of the ranking.
    """
    rows = ranking.examples.rows
    if rows is None:
        return ""
    return UNKNOWN if rows[i] == UNKNOWN_ROW else str(rows[i])


def has_rows(ranking: Ranking) -> bool:
    """Return whether the rows of the examples are known."""
    rows = ranking.examples.rows
    return rows is not None and not (rows == UNKNOWN_ROW).any()


def suggested_of(ranking: Ranking, i: int) -> str:
    """Return the suggested class of an example as label files name it; "" where there is none."""
    suggested = int(ranking.suggested[i])
    return "" if suggested == NONE else ranking.labelling.in_words(suggested)


def write_text(text: str, to: Path) -> None:
    """Write a text to a file that must not exist. Raises NotWritten."""
    write_new(to, lambda file: file.write(text.encode()))


def as_markdown(rankings: Sequence[Ranking], top: int | None, width: int | None) -> str:
    """Return a table for each list, with what the columns mean below it.

    Args:
        top: the number of examples of each list; None for as many as are read easily.
        width: see `formats.markdown`.
    """
    if top is None:
        top = MOST_PRINTED if len(rankings) == 1 else MOST_OF_SEVERAL
    # What holds for all lists stands below the last one.
    shared = [*dict.fromkeys(note for ranking in rankings for note in ranking.notes)]
    shared += explanations(rankings[-1])
    blocks = []
    for ranking in rankings:
        notes = [counted(ranking), *(shared if ranking is rankings[-1] else [])]
        blocks.append(_block(ranking, top, width, notes))
    return "\n".join(blocks)


def _block(ranking: Ranking, top: int, width: int | None, notes: Sequence[str]) -> str:
    headings = [_naming(ranking), "given", "suggested", "agreement", "rows", heading_of(ranking)]
    lines = []
    for i in map(int, ranking.order[:top]):
        row = row_of(ranking, i) if has_rows(ranking) else ""
        name = file_of(ranking, i) or row or str(ranking.examples.index[i])
        given = ranking.labelling.in_words(int(ranking.examples.given[i]))
        suggested = suggested_of(ranking, i) or "-"
        lines.append([name, given, suggested, *agreements(ranking, i), shown_score(ranking, i)])
    return markdown(title_of(ranking), headings, lines, notes, width=width)


def _naming(ranking: Ranking) -> str:
    """Return the column by which printed lists name examples."""
    if ranking.examples.files is not None:
        return FILE
    return ROW if has_rows(ranking) else INDEX


# ---- In words, for Markdown and for the page -----------------------------------------------------


def title_of(ranking: Ranking) -> str:
    """Return what the list is of."""
    by = f"{ranking.score.name} of {', '.join(ranking.rows)}"
    if ranking.is_of_places:
        by = f"the mean place by {ranking.score.name} in {len(ranking.rows)} rows"
    labelling = ranking.labelling
    return f"{labelling.suite}: {labelling.name}: the most suspicious training labels, by {by}"


def heading_of(ranking: Ranking) -> str:
    """Return the heading of the column with the score."""
    return "mean place" if ranking.is_of_places else ranking.score.name


def shown_score(ranking: Ranking, i: int) -> str:
    """Return the score of an example as it is printed."""
    value = ranking.suspicion[i]
    if not ranking.is_of_places:
        value = ranking.values[ranking.score.name][i]
    return "-" if np.isnan(value) else f"{value:.3f}"


def agreements(ranking: Ranking, i: int) -> list[str]:
    """Return how many runs, and how many rows, suggest the class of an example."""
    runs, rows = int(ranking.runs[i]), int(ranking.all_rows[i])
    agree = round(float(ranking.agreement[i]) * runs)
    rows_agree = round(float(ranking.row_agreement[i]) * rows)
    return [f"{agree}/{runs}", f"{rows_agree}/{rows}"]


def counted(ranking: Ranking) -> str:
    """Say how many labels are listed, and how many are probably wrong."""
    M = len(ranking.examples.index)
    title = ranking.labelling.title
    text = f"{title}: {ranking.estimated:,} of {M:,} training labels are estimated to be wrong: "
    text += "most runs prefer another class."
    known = {run.record.noise.get("num_train", 0) for run in ranking.labelling.runs}
    if known and max(known) < M:
        text += " Each seed was trained on a part of them."
    return text


def explanations(ranking: Ranking) -> list[str]:
    """Explain the columns."""
    score = ranking.score
    smaller = "a larger one is more suspicious" if score.name == "loss" else "a smaller one is"
    if smaller == "a smaller one is":
        smaller += " more suspicious"
    notes = [f"{score.name}: {score.what}; {smaller}."]
    if ranking.is_of_places:
        notes.append(
            "mean place: of the places in the list of each row, from 0 to 1, the most suspicious. "
            "Scores of two methods cannot be compared; --method orders by one of them."
        )
    notes.append(
        "agreement: the runs that suggest this class, of those that order the list and were "
        "trained on the example. rows: the rows of the suite most of whose runs do."
    )
    return notes
