"""A comparison of two rows in words, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nlbench.results import formats, notes, wording
from nlbench.results.analysis import LEVEL
from nlbench.results.cells import SIGN, Cell
from nlbench.results.metrics import METRICS
from nlbench.results.statistics import power
from nlbench.results.statistics.basic import Interval

if TYPE_CHECKING:
    from nlbench.results.analysis import RowAnalysis
    from nlbench.results.record import RunRecord
    from nlbench.results.two_rows import Comparison, Side


def sentence(found: Comparison) -> str:
    """Say which row is better and by how much, or that this cannot be told."""
    a, b = found.names
    if found.a.diverged or found.b.diverged:
        counts = []
        for name, row in zip(found.names, (found.a, found.b), strict=True):
            if row.diverged:
                counts.append(f"{row.diverged} of {row.planned} seeds of {name} diverged")
        return f"{' and '.join(counts)}, so it cannot be told whether {a} and {b} differ."
    interval = found.chosen
    if interval is None or interval.low is None or interval.high is None or interval.p is None:
        return _untold(found)
    unit = " points" if METRICS[found.metric].is_share else ""
    if interval.p >= 1 - LEVEL:
        low, high = _signed(interval.low, found.metric), _signed(interval.high, found.metric)
        # Names of several words are not repeated.
        difference = f"{a} minus {b}" if " " not in a + b else "the first minus the second"
        return (
            f"{a} and {b} cannot be told apart (95% interval of {difference}: {low} to "
            f"{high}{unit})."
        )

    lower = METRICS[found.metric].lower_is_better
    is_better = (interval.mean > 0) != bool(lower)
    word = "better" if is_better else "worse"
    if lower is None:
        word = "higher" if interval.mean > 0 else "lower"
    scale = METRICS[found.metric].scale
    size = f"{scale * abs(interval.mean):.2f}{unit}"
    # The interval has the sign of the mean at both ends, since the test finds a difference.
    near, far = sorted(scale * abs(end) for end in (interval.low, interval.high))
    return f"{a} is {word} than {b} by {size} (95% interval: {near:.2f} to {far:.2f})."


def _untold(found: Comparison) -> str:
    """Say why there is no test of the difference."""
    a, b = found.names
    seeds = min(found.a.n, found.b.n)
    if seeds < 2:
        return (
            f"with {wording.counted(seeds, 'seed')} it cannot be told whether {a} and {b} differ."
        )
    return (
        f"neither {a} nor {b} varies over its seeds, so the spread is unknown, and it cannot be "
        "told whether they differ by more than chance."
    )


def _signed(value: float, metric: str) -> str:
    return f"{METRICS[metric].scale * value:+.2f}"


def notes_of(found: Comparison, a: Side, b: Side) -> list[str]:
    """Return what a reader of the numbers must know: missing seeds, other pairs, power, marks."""
    below = []
    if found.a.diverged or found.b.diverged:
        for name, row in zip(found.names, (found.a, found.b), strict=True):
            if row.diverged:
                below.append(
                    f"{name}: {row.diverged} of {row.planned} seeds diverged. The difference is "
                    "over the others alone, and says nothing about those. So there is no test."
                )
    below += found.missing
    if found.adjusted_p is not None and found.pairs > 1:
        below.append(
            "The p-values above are for two rows that were chosen before anybody saw results. "
            f"{_among_all(found)}"
        )
    if found.differing:
        below.append(f"Parameters that differ: {found.differing}.")
    if _is_paired_without_spread(found):
        seeds = wording.counted(found.paired.n if found.paired else 0, "seed")
        below.append(
            f"The difference is the same in each of the {seeds}, so the spread that the paired "
            "test needs is unknown."
        )
    return notes.once([*below, *_of_power(found), *_marks(found, a, b)])


def _marks(found: Comparison, a: Side, b: Side) -> list[str]:
    """Explain the marks that the two cells have. What is missing or diverged is said elsewhere."""
    records = [*a.records(), *b.records()]
    cells = [side.results.select([side.row]).under([side.condition]) for side in (a, b)]
    marks = notes.of_optimisers(records)
    for cell in cells:
        marks += notes.of_code(cell)
    marks += [*notes.of_hardware(records), *found.signs, *notes.of_instructions(records)]
    for cell in cells:
        marks += notes.of_damage(cell)
    return marks


def signs(name: str, records: Sequence[RunRecord]) -> list[str]:
    """Say which runs of a side show signs of a training that did not work."""
    return [f"{SIGN} {name}: {text}." for text in notes.of_signs(records)]


def _differs_among_all(found: Comparison) -> bool:
    """Tell whether the pair has another verdict alone than among all pairs of its table."""
    alone, among_all = found.chosen, found.adjusted_p
    if alone is None or alone.p is None or among_all is None:
        return False
    return (alone.p < 1 - LEVEL) != (among_all < 1 - LEVEL)


def _among_all(found: Comparison) -> str:
    """Say which p-value the pair has among all pairs of the table."""
    test = "Tukey's test" if found.adjust == "tukey" else "Holm's correction"
    p = formats.p_value(found.adjusted_p or 0.0)
    return f"As one of the {found.pairs} pairs of the table this one has p {p} ({test})."


def missing(name: str, row: RowAnalysis, not_measured: int, metric: str) -> list[str]:
    """Say for how many seeds a side has no value.

    Args:
        not_measured: the number of finished runs without a value of the metric.
    """
    below = []
    without = row.planned - row.n - row.diverged - not_measured
    if without:
        below.append(f"{name}: {without} of {row.planned} seeds have no result.")
    if not_measured:
        below.append(
            f"{name}: the finished runs of {not_measured} of {row.planned} seeds did not measure "
            f"{METRICS[metric].heading}."
        )
    return below


def _is_paired_without_spread(found: Comparison) -> bool:
    """Tell whether the rows vary over their seeds, and their difference does not."""
    paired, welch = found.paired, found.welch
    if paired is None or welch is None:
        return False
    return paired.n > 1 and paired.p is None and welch.p is not None


def _of_power(found: Comparison) -> list[str]:
    if found.power is None and found.asked is not None:
        asked = wording.points(found.asked, found.metric)
        return [f"How many seeds find {asked} cannot be computed: {_why_no_power(found)}."]
    if found.power is None:
        return []
    smallest = wording.points(found.power.smallest, found.metric)
    seeds = wording.counted(found.power.seeds, "seed")
    below = [
        f"With {seeds} a true difference of {smallest} is found with probability {power.POWER:g}, "
        "in this pair alone."
    ]
    if found.power.asked is None:
        return below
    asked = wording.points(found.power.asked, found.metric)
    if found.power.needed is None:
        below.append(f"For {asked} more than {power.MOST_SEEDS:,} seeds are needed.")
    else:
        below.append(f"For {asked} it needs {wording.counted(found.power.needed, 'seed')}.")
    return below


def _why_no_power(found: Comparison) -> str:
    if found.a.diverged or found.b.diverged:
        return "the seeds that did not diverge are no fair sample"
    if min(found.a.n, found.b.n) < 2:
        return "it needs the spread over two seeds of both rows"
    return "neither row varies over its seeds, so their spread is unknown"


# ---- Formats ------------------------------------------------------------------------------------


def as_markdown(comparisons: Sequence[Comparison], width: int | None = None) -> str:
    """Return a table of the two tests for each condition, with the words below it."""
    blocks = []
    for found in comparisons:
        metric = METRICS[found.metric]
        unit = "points" if metric.is_share else metric.unit
        title = (
            f"{found.names[0]} minus {found.names[1]}: {found.condition}; {metric.meaning}, in "
            f"{unit}; suite{'s' * (len(set(found.suites)) > 1)} "
            f"{' and '.join(dict.fromkeys(found.suites))}"
        )
        headings = ["over seeds", "difference", "95% interval", "p", "seeds", "correlation"]
        lines = []
        for name, interval in (("paired t", found.paired), ("Welch's t", found.welch)):
            if interval is not None:
                lines.append([name, *_cells(interval, found)])

        means = []
        for name, row in zip(found.names, (found.a, found.b), strict=True):
            cell = Cell(
                planned=row.planned,
                values=row.values,
                failed=row.diverged + row.failed,
                scale=metric.scale,
            )
            means.append(f"{name}: {cell.text()}")
        below = [
            f"In words: {found.sentence}",
            f"{'; '.join(means)} (mean±sample std).",
            *found.notes,
        ]
        # One note about the conditions is enough for all tables.
        if found is comparisons[-1]:
            below += found.left_out
        blocks.append(formats.markdown(title, headings, lines, below, width=width))
    return "\n".join(blocks)


def as_words(comparisons: Sequence[Comparison], width: int | None = None) -> str:
    """Return a list in Markdown: for each condition a sentence, and what else differs."""
    lines: list[str] = []
    for found in comparisons:
        text = f"{found.condition}, {METRICS[found.metric].meaning}: {found.sentence}"
        if _differs_among_all(found):
            text += f" {_among_all(found)}"
        text = " ".join([text, *found.missing, *found.caveats, *found.signs])
        lines += formats.markdown_item(text, width)
    for text in comparisons[-1].left_out:
        lines += formats.markdown_item(text, width)
    return "\n".join(lines) + "\n"


def _cells(interval: Interval, found: Comparison) -> list[str]:
    ends, p, correlation = "-", "-", "-"
    if interval.low is not None and interval.high is not None:
        ends = f"{_signed(interval.low, found.metric)} to {_signed(interval.high, found.metric)}"
    if interval.p is not None:
        p = formats.p_value(interval.p)
    if interval.correlation is not None:
        correlation = f"{interval.correlation:.2f}"
    seeds = f"{interval.n}"
    if interval.kind == "welch" and found.a.n != found.b.n:
        seeds = f"{found.a.n} and {found.b.n}"
    return [_signed(interval.mean, found.metric), ends, p, seeds, correlation]


def as_json(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as a JSON list. Numbers are as in the records, unrounded."""
    values = [dataclasses.asdict(found) for found in comparisons]
    return json.dumps(values, indent=2, ensure_ascii=False)
