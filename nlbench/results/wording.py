"""The comparison of a table in words: one sentence, and the notes that its numbers need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nlbench.results.metrics import METRICS
from nlbench.results.statistics import pairs, power

if TYPE_CHECKING:
    from nlbench.results.analysis import Analysis, RowAnalysis

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_TESTS = {
    "tukey": "Tukey's test with one spread for all rows and seeds as blocks",
    "holm": "a paired t test of each pair, with Holm's correction",
}
_FINDS = f"the test finds a true difference of that size with probability {power.POWER:g}"

# More names than this do not help a reader.
_MOST_NAMES = 6


def number(count: int) -> str:
    """Return a count as a word up to ten, else in digits."""
    return _NUMBERS[count] if count < len(_NUMBERS) else f"{count}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, as "one seed" or "five seeds"."""
    return f"{number(count)} {noun}{'s' * (count != 1)}"


def names(rows: Sequence[str]) -> str:
    """Return names with commas and "and"; of many the first ones, and how many there are more."""
    if len(rows) > _MOST_NAMES:
        shown = list(rows[: _MOST_NAMES - 1])
        return f"{', '.join(shown)} and {number(len(rows) - len(shown))} more"
    if len(rows) < 2:
        return "".join(rows)
    return f"{', '.join(rows[:-1])} and {rows[-1]}"


def points(difference: float, metric: str) -> str:
    """Return a difference in percentage points with two digits that count, or in its own unit."""
    scale = METRICS[metric].scale
    size = abs(scale * difference)
    digits = 2 if size < 1 else 1
    text = f"{scale * difference:.{digits}f}"
    return f"{text} points" if scale == 100 else text


def with_words(analysis: Analysis, better: Sequence[tuple[str, str]], why: str) -> Analysis:
    """Return the analysis with its sentence and notes.

    Args:
        better: the pairs (a, b) where a is more than chance better than b.
        why: the reason for the adjustment, where the caller did not choose it.
    """
    parts = [_ties(analysis, better)]
    seen = _seen(analysis, found_any=bool(better))
    if seen:
        parts.append(seen)
    sentence = "; ".join(parts) + "."
    left_out = _left_out(analysis)
    if left_out:
        sentence += f" {left_out}"
    test = _of_test(analysis, why)
    notes = [*analysis.notes, *([test] if test else []), *_of_limits(analysis)]
    return replace(analysis, sentence=sentence, test=test, notes=notes)


# ---- The sentence -------------------------------------------------------------------------------


def _ties(analysis: Analysis, better: Sequence[tuple[str, str]]) -> str:
    """Say which rows are best, and which of them cannot be told apart."""
    rows = [row.row for row in analysis.rows if row.ranked]
    if not rows:
        return "no row can be ranked"
    if len(rows) == 1:
        return f"{rows[0]} is the only row that can be ranked"
    if not analysis.pairs:
        return "the rows are not compared"
    if all(pair.p is None for pair in analysis.pairs):
        return f"{rows[0]} comes first; {_without_test(analysis)}"

    # A metric of which neither end is the better one is only higher or lower.
    neither = METRICS[analysis.metric].lower_is_better is None
    best, better_than = ("highest", "higher than") if neither else ("best", "better than")
    beaten = set(better)
    if not beaten and len(rows) == 2:
        return f"{names(rows)} cannot be told apart"
    if not beaten:
        return f"no two of the {number(len(rows))} rows can be told apart"
    first = rows[0]
    tied = [row for row in rows if row == first or (first, row) not in beaten]
    others = [row for row in rows if row not in tied]
    rest = _the_others(others)
    if len(tied) == 1:
        return f"{first} is {better_than} {rest}"

    together = not any((a, b) in beaten for a in tied for b in tied)
    ahead = all((a, b) in beaten for a in tied for b in others)
    if together and ahead:
        both = "both are" if len(tied) == 2 else "each is"
        return f"{names(tied)} cannot be told apart; {both} {better_than} {rest}"
    text = f"{first} has the {best} mean and cannot be told apart from {names(tied[1:])}"
    if others:
        return f"{text}; it is {better_than} {rest}"
    total = len(rows) * (len(rows) - 1) // 2
    return f"{text}; {len(beaten)} of all {total} pairs can be told apart"


def _without_test(analysis: Analysis) -> str:
    """Say why no pair has a test."""
    if analysis.seeds < 2:
        return "with one seed it is unknown whether that is chance"
    seeds = counted(analysis.seeds, "seed")
    return (
        f"no row varies over its {seeds}, so the spread is unknown, and so is whether that is "
        "chance"
    )


def _the_others(rows: Sequence[str]) -> str:
    if len(rows) <= 2:
        return names(rows)
    return f"the other {number(len(rows))}"


def _seen(analysis: Analysis, found_any: bool) -> str:
    """Say which differences the seeds see.

    Args:
        found_any: whether they see some, so that they are not too few for all.
    """
    smallest = analysis.smallest_difference
    if smallest is None or analysis.seeds < 2:
        return ""
    seeds = counted(analysis.seeds, "seed")
    scale = METRICS[analysis.metric].scale
    # With a spread of its own for each pair, the number is that of the median pair.
    where = " in half of the pairs" if analysis.adjust == "holm" and len(analysis.pairs) > 1 else ""
    if scale == 100 and smallest >= 1:
        if found_any:
            return f"{seeds} are too few to rely on finding one{where}"
        return f"{seeds} are too few to see any difference{where}"
    return f"{seeds} see differences of {points(smallest, analysis.metric)}{where}"


def _left_out(analysis: Analysis) -> str:
    """Name the rows that are not ranked, each with the reason."""
    unranked, empty = [], []
    for row in analysis.rows:
        if row.diverged:
            unranked.append(f"{row.row} ({row.diverged} of {row.planned} seeds diverged)")
        elif row.alone:
            unranked.append(f"{row.row} (1 of {row.planned} seeds is done, which has no spread)")
        elif not row.n:
            empty.append(row.row)
    sentences = []
    if unranked:
        sentences.append(f"Not ranked: {names(unranked)}.")
    if empty:
        sentences.append(f"Without a value: {names(empty)}.")
    return " ".join(sentences)


# ---- Notes --------------------------------------------------------------------------------------


def _of_test(analysis: Analysis, why: str) -> str:
    """Say how pairs are compared; "" where none has a test."""
    tested = sum(pair.p is not None for pair in analysis.pairs)
    if not tested:
        return ""
    doubt = f" Tukey's test is not used: {why}." if why else ""
    if analysis.adjust == "tukey":
        doubt = " Holm's test may be the better one: the rows spread differently." if why else ""

    level = f"{100 * (1 - analysis.level):g}% for"
    if tested == 1:
        level += " a false difference"
    else:
        level += f" any false difference among all {tested} pairs"
        if analysis.adjust == "tukey":
            level += _if_alike(analysis.level, known_to_differ=bool(why))
    meaning = "rows that share a letter cannot be told apart"
    if not any(row.letters for row in analysis.rows):
        meaning = "how many of the other rows a row cannot be told apart from"
    return f"ties: {meaning} ({_TESTS[analysis.adjust]}; {level}).{doubt}"


def _if_alike(level: float, known_to_differ: bool = False) -> str:
    """Say that Tukey's test needs rows that spread alike, and what becomes of others.

    Args:
        known_to_differ: whether the seeds show that they do not.
    """
    if known_to_differ:
        return " if the rows spread alike"
    # Few seeds do not always show that the spreads differ.
    most = f"up to {pairs.MOST_FALSE}%" if level == pairs.LEVEL else "more"
    return f" if the rows spread alike, {most} if they do not"


def of_several(analyses: Sequence[Analysis]) -> list[str]:
    """Return the notes that the sentences of several conditions need, each of them once."""
    found = []
    tested = [one for one in analyses if one.test]
    if tested:
        level = f"{100 * (1 - tested[0].level):g}% for any false difference in a column"
        if any(one.adjust == "tukey" and len(one.pairs) > 1 for one in tested):
            level += _if_alike(tested[0].level)
        found.append(f"In words: rows are told apart by {_tests(tested)}; {level}.")
    if any(one.smallest_difference and one.seeds > 1 for one in analyses):
        found.append(f"Seeds see a difference if {_FINDS}.")

    errors: dict[str, list[str]] = {}
    for one in analyses:
        if one.test_error is not None and one.num_test is not None:
            text = f"{points(one.test_error, one.metric)} over {one.num_test:,}"
            errors.setdefault(text, []).append(one.condition)
    if errors:
        parts = [f"{text} test examples ({', '.join(on)})" for text, on in errors.items()]
        if len(errors) == 1:
            parts = [f"{text} test examples" for text in errors]
        found.append(
            f"Sampling error of the test set, one standard error for the best row: "
            f"{'; '.join(parts)}. It says nothing about seeds."
        )
    return found


def _tests(analyses: Sequence[Analysis]) -> str:
    """Name the test of these conditions, or each test with its conditions."""
    used: dict[str, list[str]] = {}
    for one in analyses:
        used.setdefault(one.adjust, []).append(one.condition)
    if len(used) == 1:
        return _TESTS[analyses[0].adjust]
    return "; ".join(f"{_TESTS[name]} ({', '.join(on)})" for name, on in used.items())


def _of_limits(analysis: Analysis) -> list[str]:
    """Say what the seeds and the test set can show, and which rows lack seeds."""
    notes = []
    missing = _incomplete(analysis.rows)
    if missing and analysis.pairs:
        notes.append(missing)
    untested = _untested(analysis)
    if untested:
        notes.append(untested)
    if analysis.smallest_difference and analysis.seeds > 1:
        notes.append(_of_power(analysis))
    if analysis.test_error is not None and analysis.num_test is not None:
        error = points(analysis.test_error, analysis.metric)
        notes.append(
            f"Sampling error of the test set: {error} for the best row (one standard error over "
            f"{analysis.num_test:,} test examples; it says nothing about seeds)."
        )
    return notes


def _incomplete(rows: Sequence[RowAnalysis]) -> str:
    ranked = [row for row in rows if row.ranked]
    fewer = [f"{row.row} ({row.n} of {row.planned})" for row in ranked if row.n < row.planned]
    if not fewer or len({frozenset(row.values) for row in ranked}) == 1:
        return ""
    return (
        f"Not all seeds of {names(fewer)} are done. Rows are compared over the seeds that they "
        "have in common, so that a difference may not be that of the printed means."
    )


def _untested(analysis: Analysis) -> str:
    """Name the pairs that have no test although both rows have two seeds; "" where all have none.

    They count as tied.
    """
    count = {row.row: row.n for row in analysis.rows}
    pairs_without = []
    for pair in analysis.pairs:
        if pair.p is None and min(count[pair.a], count[pair.b]) > 1:
            pairs_without.append(f"{pair.a} beside {pair.b}")
    if not pairs_without or len(pairs_without) == len(analysis.pairs):
        return ""
    return (
        f"Spread unknown, so not tested, and therefore tied: "
        f"{names(pairs_without)}, which do not vary over their seeds."
    )


def _of_power(analysis: Analysis) -> str:
    seeds = number(analysis.seeds).capitalize()
    return (
        f"{seeds} seeds see a difference if {_FINDS}; `nlbench compare` says how many seeds "
        "another one needs."
    )
