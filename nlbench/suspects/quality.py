"""Compare the order of suspects with the true labels, where they are known."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nlbench.errors import SuiteError
from nlbench.results import statistics
from nlbench.results.formats import csv_name, markdown
from nlbench.suspects import confident
from nlbench.suspects.dataset import Truth
from nlbench.suspects.labelling import Labelling
from nlbench.suspects.ranking import NONE, Examples, Ranking, examples_of, rank
from nlbench.suspects.scores import SCORES

ALL_ROWS = "all rows"
CLEANLAB = "cleanlab"

# The fields of a Line without what was measured.
Key = tuple[str, str, str, str, str]

# Which examples a line is about.
TRAINED_ON = "trained on"
HELD_OUT = "held out"

_COLUMNS = (
    "suite",
    "condition",
    "row",
    "by",
    "examples",
    "probabilities",
    "lists",
    "n",
    "noise_rate",
    "average_precision",
    "average_precision_std",
    "estimated",
    "precision",
    "recall",
)
_HEADINGS = ("row", "by", "examples", "n", "wrong", "AP", "estimated", "precision", "recall")


@dataclass(frozen=True)
class Measured:
    """How well an order of examples finds the wrong labels of one labelling.

    Attributes:
        n: examples whose true label is known.
        wrong: how many of them have a wrong label.
        average_precision: over the whole order. Of a random order it is wrong / n.
        estimated: how many labels the method takes for wrong.
        precision: the share of wrong labels among the first `estimated` ones; None where there are
            none.
        recall: the share of the wrong labels that is among these.
    """

    n: int
    wrong: int
    average_precision: float
    estimated: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Line:
    """A row of the suite with a score, or with cleanlab, under one condition.

    Attributes:
        part: the examples, TRAINED_ON or HELD_OUT.
        probabilities: "in-sample" or "out-of-sample", of what the order was made of.
        measured: of each labelling.
    """

    condition: str
    row: str
    by: str
    part: str
    probabilities: str
    measured: list[Measured] = field(default_factory=list)

    def mean(self, name: str) -> float | None:
        """Return the mean over the labellings; None where it has no value in any."""
        values = [getattr(one, name) for one in self.measured]
        return statistics.mean([float(value) for value in values if value is not None])

    @property
    def std(self) -> float | None:
        """The sample standard deviation of the average precision; None for one labelling."""
        return statistics.sample_std([one.average_precision for one in self.measured])


@dataclass
class QualityTable:
    """The comparison of a suite.

    Attributes:
        headings, lines: as the page and Markdown show them.
        numbers: how many columns, the last ones, hold numbers.
    """

    suite: str
    found: list[Line]
    notes: list[str]
    numbers: int = 6

    @property
    def headings(self) -> list[str]:
        """The headings, with that of the condition where there are several."""
        return [*(["condition"] if self._several else []), *_HEADINGS]

    @property
    def lines(self) -> list[list[str]]:
        """The cells of each line."""
        return [self._cells(line) for line in self.found]

    @property
    def _several(self) -> bool:
        return len({line.condition for line in self.found}) > 1

    def _cells(self, line: Line) -> list[str]:
        precision = _percent(line.mean("average_precision"))
        if line.std is not None:
            precision += f"±{100 * line.std:.1f}"
        n, wrong = line.mean("n") or 0.0, line.mean("wrong") or 0.0
        by = f"{line.by}, {line.probabilities}" if line.by == CLEANLAB else line.by
        cells = [line.row, by, line.part, f"{n:,.0f}", _percent(wrong / n)]
        cells += [precision, f"{line.mean('estimated') or 0:,.0f}"]
        cells += [_percent(line.mean("precision")), _percent(line.mean("recall"))]
        return [line.condition, *cells] if self._several else cells

    def as_markdown(self, width: int | None) -> str:
        """Return the table with its notes."""
        title = f"{self.suite}: how well suspects find the wrong labels, in %"
        return markdown(title, self.headings, self.lines, self.notes, width=width, split=False)

    def as_csv(self) -> str:
        """Return the table for programs; shares are in [0, 1]."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for line in self.found:
            n, wrong = line.mean("n") or 0.0, line.mean("wrong") or 0.0
            names = map(csv_name, (self.suite, line.condition, line.row, line.by))
            writer.writerow(
                [*names, line.part, line.probabilities, len(line.measured), f"{n:g}"]
                + [_number(wrong / n), _number(line.mean("average_precision")), _number(line.std)]
                + [_number(line.mean(name)) for name in ("estimated", "precision", "recall")]
            )
        return text.getvalue()


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


# ---- One order against the truth -----------------------------------------------------------------


def measure(suspicion: np.ndarray, wrong: np.ndarray, estimated: int) -> Measured | None:
    """Compare an order with the truth; None where no label is wrong, or all are.

    Args:
        suspicion: (n,) larger for a more suspicious label.
        wrong: (n,) bool.
        estimated: how many labels are taken for wrong.
    """
    from sklearn.metrics import average_precision_score

    number = int(wrong.sum())
    if number in (0, len(wrong)):
        return None
    first = np.argsort(-suspicion, kind="stable")[:estimated]
    hits = int(wrong[first].sum())
    return Measured(
        n=len(wrong),
        wrong=number,
        average_precision=float(average_precision_score(wrong, suspicion)),
        estimated=estimated,
        precision=hits / estimated if estimated else None,
        recall=hits / number,
    )


def _of_ranking(ranking: Ranking, clean: np.ndarray, among: np.ndarray) -> Measured | None:
    """Compare a ranking with the truth on some of its examples.

    Args:
        clean: (M,) the true labels of its examples, NONE where unknown.
        among: (M,) bool, the examples that count.
    """
    part = among & (clean != NONE) & ~np.isnan(ranking.suspicion)
    wrong = (clean != ranking.examples.given)[part]
    # Of a part, as large a share is taken for wrong as of the whole.
    estimated = round(ranking.estimated * part.sum() / max(len(part), 1))
    return measure(ranking.suspicion[part], wrong, int(estimated)) if part.any() else None


# ---- All rows and scores -------------------------------------------------------------------------


def compare(
    suite: str,
    labellings: Sequence[tuple[Labelling, Truth | None]],
    rows: Sequence[str],
    scores: Sequence[str],
) -> QualityTable:
    """Measure each of these rows by each of these scores, and by cleanlab where it is installed.

    Raises: SuiteError where no true label is known.
    """
    lines: dict[Key, Line] = {}
    notes: list[str] = []
    for labelling, truth in labellings:
        if truth is None:
            notes.append(f"{labelling.name}: left out, because no true label is known.")
            continue
        for key, measured in _of_labelling(labelling, truth, rows, scores, notes):
            line = lines.setdefault(key, Line(*key))
            line.measured.append(measured)

    if not lines:
        reason = notes[0] if notes else "no label is wrong, or all are"
        raise SuiteError(f"--quality: nothing can be compared. {reason}")
    notes += _explanations(list(lines.values()))
    # Of one condition together, in the order in which they were found.
    order = list(dict.fromkeys(line.condition for line in lines.values()))
    found = sorted(lines.values(), key=lambda line: order.index(line.condition))
    return QualityTable(suite, found, list(dict.fromkeys(notes)))


def _of_labelling(
    labelling: Labelling,
    truth: Truth,
    rows: Sequence[str],
    scores: Sequence[str],
    notes: list[str],
) -> Iterator[tuple[Key, Measured]]:
    """Yield what was measured, by the fields of its line."""
    examples = examples_of(labelling)
    clean = truth.clean[examples.index]
    chosen = [row for row in labelling.rows if row in rows]
    title = labelling.title

    groups = [[row] for row in chosen]
    if len(chosen) > 1:
        groups.append(chosen)
    rankings: dict[tuple[str, str], Ranking] = {}
    for group in groups:
        name = group[0] if len(group) == 1 else ALL_ROWS
        for score in scores:
            if not _have(labelling, group, score):
                continue
            ranking = rank(labelling, group, score, examples)
            rankings[name, score] = ranking
            everything = np.ones(len(clean), bool)
            measured = _of_ranking(ranking, clean, everything)
            if measured is not None:
                yield (title, name, score, TRAINED_ON, "in-sample"), measured

    for row in chosen:
        held = confident.held_out(labelling, row, examples, truth)
        if held is not None:
            yield from _of_held_out(held, row, title, truth, examples, rankings, notes)
        inside = confident.trained_on(labelling, row, examples)
        if inside is not None:
            measured = _by_cleanlab(inside, truth, notes)
            if measured is not None:
                yield (title, row, CLEANLAB, TRAINED_ON, "in-sample"), measured


def _have(labelling: Labelling, rows: Sequence[str], score: str) -> bool:
    """Return whether a run of these rows has the score; of several rows, at least two must."""
    array = SCORES[score].array
    having = {run.row for run in labelling.runs if run.row in rows and array in run.arrays}
    return len(having) >= min(len(rows), 2)


def _of_held_out(
    held: confident.Probabilities,
    row: str,
    title: str,
    truth: Truth,
    examples: Examples,
    rankings: dict[tuple[str, str], Ranking],
    notes: list[str],
) -> Iterator[tuple[Key, Measured]]:
    """Yield what cleanlab finds among held-out examples, and what the row's scores find there."""
    # What one seed holds out, another one was trained on. All are compared on these alone.
    among = np.isin(examples.index, held.index)
    if among.any():
        held = held.among(examples.index)
    measured = _by_cleanlab(held, truth, notes)
    if measured is not None:
        yield (title, row, CLEANLAB, HELD_OUT, "out-of-sample"), measured

    clean = truth.clean[examples.index]
    for (name, score), ranking in rankings.items():
        if name != row or not among.any():
            continue
        measured = _of_ranking(ranking, clean, among)
        if measured is not None:
            yield (title, row, score, HELD_OUT, "in-sample"), measured


def _by_cleanlab(
    probabilities: confident.Probabilities, truth: Truth, notes: list[str]
) -> Measured | None:
    """Measure `find_label_issues`; None without cleanlab, or where nothing can be compared."""
    issues = confident.find_issues(probabilities)
    if issues is None:
        notes.append(confident.NOT_INSTALLED)
        return None
    clean = truth.clean[probabilities.index]
    known = clean != NONE
    wrong = (clean != probabilities.given)[known]
    number = int(wrong.sum())
    if number in (0, len(wrong)):
        return None

    from sklearn.metrics import average_precision_score

    flagged = issues.flagged[known]
    hits, estimated = int((flagged & wrong).sum()), int(flagged.sum())
    return Measured(
        n=len(wrong),
        wrong=number,
        average_precision=float(average_precision_score(wrong, issues.suspicion[known])),
        estimated=estimated,
        precision=hits / estimated if estimated else None,
        recall=hits / number,
    )


def _explanations(lines: Sequence[Line]) -> list[str]:
    notes = []
    lists = max(len(line.measured) for line in lines)
    if lists > 1:
        notes.append(
            f"Each seed has labels of its own, so the numbers are means over {lists} lists; ± is "
            "the sample standard deviation over them."
        )
    notes.append(
        "AP: average precision. wrong: the share of wrong labels among the n examples. A random "
        "order has this AP, and this precision at any number; its recall is the share of examples "
        "that are taken."
    )
    notes.append(
        "estimated: labels that are taken for wrong without knowing the truth: most runs prefer "
        "another class, or cleanlab's find_label_issues names them. precision and recall are those "
        "of so many first examples."
    )
    notes.append("in-sample: the network was trained on these examples with their given labels.")
    if any(line.part == HELD_OUT for line in lines):
        notes.append(
            "held out: examples of the seeds' validation parts. cleanlab has the probabilities of "
            "the networks that were not trained on them, and a score those of the seeds that were."
        )
    elif any(line.by == CLEANLAB for line in lines):
        notes.append(
            "cleanlab is made for out-of-sample probabilities, and these are in-sample: hold out a "
            "validation part (`--set val_fraction=0.2`) for a fair comparison."
        )
    else:
        notes.append(
            "Without cleanlab: no run keeps probabilities of all classes. `nlbench run` "
            "--save-probabilities keeps them, of the held-out part, too."
        )
    return notes
