"""The part of a table that says what is more than chance: two columns, and notes in words."""

from __future__ import annotations

from nlbench.results.analysis import Analysis
from nlbench.results.cells import Results
from nlbench.results.view import RANK, TIES


def columns(results: Results, analysis: Analysis) -> dict[str, list[str]]:
    """Return the columns of letters and of ranks for the rows that are shown.

    Empty where nothing can be tested, as with one seed. A row that is not ranked has "-", and its
    reason is in the sentence.
    """
    by_row = {row.row: row for row in analysis.rows}
    shown = [by_row[row.name] for row in results.rows]
    if not any(row.letters for row in analysis.rows):
        return {}

    ranks = []
    for row in shown:
        if row.rank_low == row.rank_high:
            ranks.append("-" if row.rank_low is None else f"{row.rank_low}")
        else:
            ranks.append(f"{row.rank_low}-{row.rank_high}")
    return {TIES: [row.letters or "-" for row in shown], RANK: ranks}


def notes(analysis: Analysis, *, with_letters: bool) -> list[str]:
    """Return the comparison in words and the notes that it needs; none of fewer than two rows.

    Args:
        with_letters: whether the table has a column that comes from the pairs of rows.
    """
    if sum(row.n > 0 for row in analysis.rows) < 2:
        return []
    found = [in_words(analysis)]
    for note in analysis.notes:
        if with_letters or note != analysis.test:
            found.append(note)
    return found


def in_words(analysis: Analysis, title: str = "") -> str:
    """Return the sentence as a note.

    Args:
        title: of the condition, in a table of several.
    """
    return f"In words{f', {title}' if title else ''}: {analysis.sentence}"
