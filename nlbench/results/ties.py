"""The part of a table that says what is more than chance: two columns, and notes in words."""

from __future__ import annotations

from nlbench.results import wording
from nlbench.results.analysis import Analysis
from nlbench.results.cells import Results
from nlbench.results.view import RANK, TIES


def columns(results: Results, analysis: Analysis) -> dict[str, list[str]]:
    """Return the columns of ties and of ranks for the rows that are shown.

    Empty where nothing can be tested, as with one seed. A row that is not ranked has "-", and its
    reason is in the sentence.
    """
    by_row = {row.row: row for row in analysis.rows}
    shown = [by_row[row.name] for row in results.rows]
    if all(row.tied is None for row in analysis.rows):
        return {}

    ranks = []
    for row in shown:
        if row.rank_low == row.rank_high:
            ranks.append("-" if row.rank_low is None else f"{row.rank_low}")
        else:
            ranks.append(f"{row.rank_low}-{row.rank_high}")
    return {TIES: [row.ties for row in shown], RANK: ranks}


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


def disagreement(results: Results, condition: int, reference: str, analysis: Analysis) -> list[str]:
    """Say why p-values of differences to the reference and the ties disagree, where they do."""
    tied = analysis.of(reference).tied
    ranked = {row.row for row in analysis.rows if row.tied is not None}
    differences = results.differences(reference, condition)
    rows = []
    for row in results.rows:
        found = differences.get(row.name)
        if found is None or found.p is None or tied is None or row.name not in ranked:
            continue
        if (row.name in tied) == (found.p < 1 - analysis.level):
            rows.append(row.name)
    if not rows:
        return []

    tests = sum(found.p is not None for found in differences.values())
    pairs = sum(pair.p is not None for pair in analysis.pairs)
    ties = "letters" if any(row.letters for row in analysis.rows) else "ties"
    of_p, of_ties = f"p counts {tests} differences", f"the {ties} {pairs} pairs"
    if analysis.adjust == "tukey":
        of_p = f"p takes the spread of two rows and counts {tests} differences"
        of_ties = f"the {ties} take one spread for all rows and count {pairs} pairs"
    return [
        f"p and {ties} disagree for {wording.names(rows)} beside {reference}: {of_p}, {of_ties}."
    ]


def in_words(analysis: Analysis, title: str = "") -> str:
    """Return the sentence as a note.

    Args:
        title: of the condition, in a table of several.
    """
    return f"In words{f', {title}' if title else ''}: {analysis.sentence}"
