"""Order the training examples of a labelling, the most suspicious label first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from nlbench.errors import StoreError, SuiteError
from nlbench.suspects.labelling import Labelling, SeenRun
from nlbench.suspects.scores import PREFERRED, SCORES, Score

# In place of a class where no run suggests another one.
NONE = -1
# In place of a row that could not be found out.
UNKNOWN_ROW = -1


@dataclass(frozen=True)
class Examples:
    """The training examples of a labelling that any run was trained on, in the dataset's order.

    Attributes:
        index: (M,) int64, ascending positions in the dataset's training part.
        given: (M,) int64, the given labels.
        files: (M,) text, the files of the images; None where they are no files.
        rows: (M,) int64, where the given labels are in the list that a person corrects: rows of a
            table, or positions without the imbalance; UNKNOWN_ROW where nobody knows. None where
            `files` or `index` say it.
    """

    index: np.ndarray
    given: np.ndarray
    files: np.ndarray | None
    rows: np.ndarray | None = None

    def places(self, run: SeenRun) -> np.ndarray:
        """Return where the examples of a run are among these, (N,)."""
        return np.searchsorted(self.index, run.index)

    def spread(self, run: SeenRun, values: np.ndarray) -> np.ndarray:
        """Return values (N,) of a run as (M,) float64, NaN where it was not trained."""
        out = np.full(len(self.index), np.nan)
        out[self.places(run)] = values
        return out


@dataclass(frozen=True)
class Ranking:
    """The examples of a labelling with everything that is known of their labels.

    All arrays are (M,), in the order of `examples`.

    Attributes:
        rows: the rows whose runs order the examples.
        score: the name of the score that orders them.
        suspicion: larger for a more suspicious label; NaN where no run has the score.
        values: score -> mean over the runs of `rows`; only of scores that any of them has.
        suggested: the class that most runs of `rows` suggest in place of the given one; NONE where
            none does.
        agreement: the share of these runs that suggest it.
        runs: how many of these runs were trained on the example.
        row_agreement: the share of all rows of the suite, most of whose runs suggest that class.
        all_rows: how many rows have a run that was trained on the example.
        estimated: the number of examples of which most runs suggest another class.
        order: the positions in these arrays, the most suspicious first.
    """

    labelling: Labelling
    examples: Examples
    rows: Sequence[str]
    score: Score
    suspicion: np.ndarray
    values: dict[str, np.ndarray]
    suggested: np.ndarray
    agreement: np.ndarray
    runs: np.ndarray
    row_agreement: np.ndarray
    all_rows: np.ndarray
    estimated: int
    order: np.ndarray
    notes: list[str] = field(default_factory=list)

    @property
    def is_of_places(self) -> bool:
        """Whether the examples are ordered by their mean place in the lists of several rows."""
        return len(self.rows) > 1


def examples_of(labelling: Labelling) -> Examples:
    """Return the examples that any run of a labelling was trained on.

    Raises: StoreError where two runs give one example different labels.
    """
    index = np.unique(np.concatenate([run.index for run in labelling.runs])).astype(np.int64)
    given = np.full(len(index), NONE, np.int64)
    files: np.ndarray | None = None
    for run in labelling.runs:
        places = np.searchsorted(index, run.index)
        labels = run.arrays["labels"].astype(np.int64)
        known = given[places] != NONE
        if (given[places][known] != labels[known]).any():
            raise StoreError(
                f"{labelling.name}: two runs have different labels of one example although their "
                "records say that the labels are the same. `nlbench verify` looks for damage"
            )
        given[places] = labels
        if "names" in run.arrays:
            if files is None:
                files = np.full(len(index), "", dtype=object)
            files[places] = run.arrays["names"]
    return Examples(index, given, files)


def rank(
    labelling: Labelling, rows: Collection[str], score: str | None, examples: Examples | None = None
) -> Ranking:
    """Order the examples of a labelling by the score of one or several rows.

    Of one row, the mean of the score over its runs counts. Scores of several rows cannot be
    compared, so each row orders the examples, and the mean place counts.

    Args:
        rows: rows of the suite. Those that the labelling lacks are ignored.
        score: a name of SCORES; None takes the first of PREFERRED that half of the runs have.
        examples: what `examples_of` returns, if it was asked for before.
    Raises: SuiteError where no run of the rows has the score.
    """
    examples = examples or examples_of(labelling)
    runs = [run for run in labelling.runs if run.row in rows]
    chosen, notes = _chosen(labelling, runs, score)
    with_score = [run for run in runs if chosen.array in run.arrays]
    ranking_rows = list(dict.fromkeys(run.row for run in with_score))

    suspicion = _suspicion(examples, with_score, ranking_rows, chosen)
    suggestions = _suggestions(examples, with_score)
    suggested, agreement, seen = _most_frequent_other(suggestions, examples.given)
    row_agreement, all_rows = _agreement_of_rows(labelling, examples, suggested)
    others = ((suggestions != NONE) & (suggestions != examples.given)).sum(0)

    values = {}
    for name, other in SCORES.items():
        if any(other.array in run.arrays for run in with_score):
            values[name] = _mean_of_rows(examples, with_score, ranking_rows, other)

    # A stable order: examples of one suspicion are in the order of the dataset, unknown ones last.
    order = np.argsort(np.where(np.isnan(suspicion), np.inf, -suspicion), kind="stable")
    return Ranking(
        labelling=labelling,
        examples=examples,
        rows=ranking_rows,
        score=chosen,
        suspicion=suspicion,
        values=values,
        suggested=suggested,
        agreement=agreement,
        runs=seen,
        row_agreement=row_agreement,
        all_rows=all_rows,
        estimated=int((2 * others > seen).sum()),
        order=order,
        notes=notes,
    )


# ---- Which score ---------------------------------------------------------------------------------


def _chosen(
    labelling: Labelling, runs: Sequence[SeenRun], asked: str | None
) -> tuple[Score, list[str]]:
    """Return the score that orders the examples, and notes on the runs that lack it."""
    if not runs:
        raise SuiteError(f"{labelling.name}: no run of these rows is finished")
    if asked is not None:
        score = SCORES[asked]
        if not any(score.array in run.arrays for run in runs):
            others = [name for name in SCORES if any(SCORES[name].array in r.arrays for r in runs)]
            instead = f". They have: {', '.join(others)}" if others else ""
            raise SuiteError(
                f"--score {asked}: no run of {', '.join(_rows(runs))} has it ({labelling.name}); "
                f"{_why_missing(score, runs, labelling)}{instead}"
            )
        return score, _lacking(score, runs, labelling)

    # Runs that lack the preferred score do not count, unless these are most runs.
    counts = {name: sum(SCORES[name].array in run.arrays for run in runs) for name in PREFERRED}
    enough = [name for name in PREFERRED if 2 * counts[name] >= len(runs)]
    best = enough[0] if enough else max(PREFERRED, key=lambda name: counts[name])
    if not counts[best]:
        raise SuiteError(
            f"{labelling.name}: no run of {', '.join(_rows(runs))} has a score of its training "
            f"examples; {_why_missing(SCORES[best], runs, labelling)}"
        )
    notes = []
    if best != PREFERRED[0]:
        first = SCORES[PREFERRED[0]]
        lacking = [run for run in runs if first.array not in run.arrays]
        notes.append(
            f"{labelling.title}: the examples are ordered by {best}, because most runs have no "
            f"{first.name}: {_why_missing(first, lacking, labelling)}"
        )
    return SCORES[best], notes + _lacking(SCORES[best], runs, labelling)


def _rows(runs: Sequence[SeenRun]) -> list[str]:
    return list(dict.fromkeys(run.row for run in runs))


def _lacking(score: Score, runs: Sequence[SeenRun], labelling: Labelling) -> list[str]:
    """Return a note on the runs that do not count because they lack the score."""
    lacking = [run for run in runs if score.array not in run.arrays]
    if not lacking:
        return []
    rows = ", ".join(_rows(lacking))
    return [
        f"{labelling.title}: {len(lacking)} of {len(runs)} runs do not count, because they have no "
        f"{score.name} (of {rows}): {_why_missing(score, lacking, labelling)}"
    ]


def _why_missing(score: Score, runs: Sequence[SeenRun], labelling: Labelling) -> str:
    """Say why runs lack a score, and how to get it."""
    # The mean loss is older than the margin, and both are of the same logits.
    older = [run for run in runs if score.name == "margin" and "train_loss" in run.arrays]
    if score.name != "own" and not older:
        return f"a run lacks it if {score.missing}"

    again = labelling.command or "nlbench run SUITE"
    reason = "an earlier version of nlbench did not keep it"
    if score.name == "own":
        reason = f"a run lacks it if {score.missing}, or if {reason}"
    return f"{reason}; `{again} --stale rerun` trains such runs again"


# ---- Values of several runs ----------------------------------------------------------------------


def _mean(stacked: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over the first axis without NaN; NaN where there is no value."""
    values = np.stack(stacked)
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0)


def _of_row(
    examples: Examples, runs: Sequence[SeenRun], row: str, score: Score
) -> np.ndarray | None:
    """Return the mean score (M,) over the runs of a row; None where none has it."""
    spread = []
    for run in runs:
        if run.row == row and score.array in run.arrays:
            spread.append(examples.spread(run, run.arrays[score.array]))
    return _mean(spread) if spread else None


def _mean_of_rows(
    examples: Examples, runs: Sequence[SeenRun], rows: Sequence[str], score: Score
) -> np.ndarray:
    found = [_of_row(examples, runs, row, score) for row in rows]
    return _mean([values for values in found if values is not None])


def _suspicion(
    examples: Examples, runs: Sequence[SeenRun], rows: Sequence[str], score: Score
) -> np.ndarray:
    """Return the suspicion (M,) of one row, or the mean place in [0, 1] in those of several."""
    suspicions = []
    for row in rows:
        values = _of_row(examples, runs, row, score)
        if values is not None:
            suspicions.append(score.suspicion(values))
    if len(suspicions) == 1:
        return suspicions[0]
    return _mean([_places(suspicion) for suspicion in suspicions])


def _places(suspicion: np.ndarray) -> np.ndarray:
    """Return the places in [0, 1], 1 for the most suspicious. Equal ones share their mean place."""
    from scipy.stats import rankdata

    known = ~np.isnan(suspicion)
    places = np.full(len(suspicion), np.nan)
    ranks = rankdata(suspicion[known], method="average")
    places[known] = (ranks - 1) / max(len(ranks) - 1, 1)
    return places


# ---- What is suggested ---------------------------------------------------------------------------


def _suggestions(examples: Examples, runs: Sequence[SeenRun]) -> np.ndarray:
    """Return the class that each run prefers, (R, M); NONE where it was not trained on it."""
    out = np.full((len(runs), len(examples.index)), NONE, np.int64)
    for i, run in enumerate(runs):
        classes = run.suggestions()
        if classes is not None:
            out[i, examples.places(run)] = classes
    return out


def _most_frequent_other(
    suggestions: np.ndarray, given: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the most frequent class but the given one, the share of runs, and their number.

    Of two that are equally frequent the smaller class counts.
    """
    seen = (suggestions != NONE).sum(0)
    others = np.where(suggestions == given, NONE, suggestions)
    best = np.full(len(given), NONE, np.int64)
    most = np.zeros(len(given), np.int64)
    for candidate in others:
        count = np.where(candidate == NONE, 0, (others == candidate).sum(0))
        better = (count > most) | ((count == most) & (count > 0) & (candidate < best))
        best = np.where(better, candidate, best)
        most = np.where(better, count, most)
    return best, most / np.maximum(seen, 1), seen


def _agreement_of_rows(
    labelling: Labelling, examples: Examples, suggested: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of rows most of whose runs suggest a class (M,), and how many rows see it.

    All rows of the labelling count, also where one of them orders the examples.
    """
    agree, rows = np.zeros(len(suggested)), np.zeros(len(suggested), np.int64)
    for row in labelling.rows:
        own = _suggestions(examples, [run for run in labelling.runs if run.row == row])
        seen = (own != NONE).sum(0)
        same = ((own == suggested) & (own != NONE)).sum(0)
        rows += seen > 0
        agree += 2 * same > seen
    return agree / np.maximum(rows, 1), rows
