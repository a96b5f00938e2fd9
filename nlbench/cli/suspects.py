"""Commands about the labels of the training examples: `suspects` and `relabel`."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlbench.cli.app import (
    DataDir,
    app,
    complete_suites,
    examples,
    guarded,
    say,
    warn,
    width,
    write,
)
from nlbench.errors import SuiteError, UserError

if TYPE_CHECKING:
    from nlbench.data.base import Dataset
    from nlbench.results.cells import Results
    from nlbench.suspects.dataset import Whereabouts
    from nlbench.suspects.labelling import Found, Labelling
    from nlbench.suspects.quality import QualityTable
    from nlbench.suspects.ranking import Ranking


class ListFormat(StrEnum):
    md = "md"
    csv = "csv"
    html = "html"


class ScoreName(StrEnum):
    margin = "margin"
    own = "own"
    prob = "prob"
    loss = "loss"


# ---- suspects ------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "nlbench suspects results --method elr",
        "nlbench suspects results --method elr --to suspects.csv",
        "nlbench suspects results --to suspects.html --grid suspects.png",
        "nlbench suspects results --quality       # where the true labels are known",
    )
)
@guarded
def suspects(
    out: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="The folder that holds the records.")
    ] = Path("results"),
    suite: Annotated[
        str | None,
        typer.Option(help="A suite in that folder. It is needed where there are several."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Order the examples by these rows or methods alone: elr,gce. The default is all "
            "rows, of which the mean place counts."
        ),
    ] = None,
    score: Annotated[
        ScoreName | None,
        typer.Option(
            help="Order by the mean margin of the logits over the epochs; by the method's own "
            "targets or weights; by the final probability of the given label; or by its mean loss. "
            "The default is the margin where it was kept.",
        ),
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            help="Only this dataset with its labels, as tables print it: 'CIFAR-10N worst'"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Only the runs of this seed."),
    ] = None,
    top: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="The number of examples of each list. The default is all of them as CSV, a few in "
            "the terminal, and on a page those that are estimated to be wrong.",
        ),
    ] = None,
    format_: Annotated[
        ListFormat | None,
        typer.Option(
            "--format",
            help="Markdown, CSV, or one HTML page with pictures. The default is that of --to.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Write to this new file, and not to standard output.")
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Also draw the first pictures with their labels to a new file."
        ),
    ] = None,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality",
            help="Print how well each row and score finds the wrong labels, where the true ones "
            "are known; on a page, below the lists.",
        ),
    ] = False,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SUITE",
            help="A suite that says where folders of your own lie: records hold no paths.",
            autocompletion=complete_suites,
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """List the training examples whose given labels look wrong, the most suspicious first.

    True labels are not needed. Fill in the column `confirmed` of the CSV list, and `nlbench
    relabel` writes your list of labels anew.
    """
    from nlbench.suspects import pictures
    from nlbench.suspects.dataset import Whereabouts

    form, count = _format(format_, to), _count(top)
    if quality and grid is not None:
        raise SuiteError("--quality and --grid exclude each other: a grid shows no numbers")
    _require_new("--to", to)
    _require_new("--grid", grid)
    if grid is not None:
        pictures.check_grid(grid)

    results, found = _read(out, suite, condition)
    labellings = _of_seed(found.labellings, seed)
    rows = _rows(method, results)
    where = Whereabouts(from_, data_dir)
    warn(*_about_seeds(labellings, seed), *found.notes)

    table = _quality(results.suite, labellings, rows, score, where) if quality else None
    if table is not None and form is not ListFormat.html:
        _put(table.as_csv() if form is ListFormat.csv else table.as_markdown(width()), to)
        return

    name = None if score is None else score.value
    rankings = [_ranked(one, rows, name, where) for one in labellings]
    if grid is not None:
        _draw(rankings, count, where, grid)
    _put(_text(rankings, count, form, where, table), to)


def _text(
    rankings: list[Ranking],
    top: int | None,
    form: ListFormat,
    where: Whereabouts,
    table: QualityTable | None,
) -> str:
    from nlbench.suspects import listing

    if form is ListFormat.html:
        return _page(rankings, top, where, table)
    if form is ListFormat.md:
        return listing.as_markdown(rankings, top, width())
    # A CSV has no place for notes.
    notes = dict.fromkeys(note for one in rankings for note in one.notes)
    warn(*notes)
    return listing.as_csv(rankings, top)


def _format(given: ListFormat | None, to: Path | None) -> ListFormat:
    """Return the format that was asked for, else that of the file's suffix."""
    suffix = "" if to is None else to.suffix.lower().removeprefix(".")
    known = {form.value: form for form in ListFormat} | {"htm": ListFormat.html}
    if given is not None:
        return given
    if to is None:
        return ListFormat.md
    if suffix not in known:
        raise SuiteError(f"--to {to}: end the name with .csv, .html or .md, or give --format")
    return known[suffix]


def _count(top: str | None) -> int | None:
    """Return the number of `--top`, which is larger than any list for `all`; None without it."""
    if top is None:
        return None
    if top == "all":
        return sys.maxsize
    if not top.isdecimal() or int(top) == 0:
        raise SuiteError(f"--top {top!r}: must be all or a number from 1 on")
    return int(top)


def _require_new(option: str, path: Path | None) -> None:
    """Raise SuiteError for a file that is there: somebody may have filled it in."""
    if path is None:
        return
    if os.path.lexists(path):
        raise SuiteError(
            f"{option} {path}: is there already, and labels may have been confirmed in it; choose "
            "another name, or remove it"
        )
    if not path.absolute().parent.is_dir():
        raise SuiteError(f"{option} {path}: there is no folder {path.parent}")


def _read(out: Path, suite: str | None, condition: str | None) -> tuple[Results, Found]:
    from nlbench import registry
    from nlbench.results.cells import Results
    from nlbench.results.store import Store
    from nlbench.suspects import labelling

    store = Store(out, warn)
    plan = labelling.choose_plan(store, suite)
    results = Results(plan, store, registry.method_files([]))
    return results, labelling.read(results, store, plan, condition=condition)


def _rows(method: str | None, results: Results) -> list[str]:
    """Return the rows that are named by their own names or by those of their methods."""
    from nlbench.errors import unknown_name
    from nlbench.plan.options import parse_list

    if method is None:
        return [row.name for row in results.rows]
    chosen: list[str] = []
    for name in parse_list("--method", method, "rows as elr,gce"):
        found = [row.name for row in results.rows if name in (row.name, row.method)]
        if not found:
            raise SuiteError(unknown_name("row", name, [row.name for row in results.rows]))
        chosen += found
    return list(dict.fromkeys(chosen))


def _of_seed(labellings: list[Labelling], seed: int | None) -> list[Labelling]:
    """Return the labellings with the runs of one seed alone; all of them for None."""
    from dataclasses import replace

    if seed is None:
        return labellings
    chosen = []
    for one in labellings:
        runs = [run for run in one.runs if run.seed == seed]
        if runs:
            chosen.append(replace(one, runs=runs))
    if not chosen:
        seeds = sorted({number for one in labellings for number in one.seeds})
        raise SuiteError(f"--seed {seed}: no run has it; there are: {', '.join(map(str, seeds))}")
    return chosen


def _about_seeds(labellings: list[Labelling], seed: int | None) -> list[str]:
    """Say for which conditions each seed has a list of its own."""
    if seed is not None:
        return []
    counts: dict[str, int] = {}
    for one in labellings:
        counts[one.title] = counts.get(one.title, 0) + one.alone
    return [
        f"{title}: each seed has labels or examples of its own, so there are {number} lists, and "
        "no example is compared over seeds; --seed chooses one"
        for title, number in counts.items()
        if number > 1
    ]


def _ranked(
    labelling: Labelling, rows: list[str], score: str | None, where: Whereabouts
) -> Ranking:
    """Return the ranking of a labelling, with the rows of its examples where they are needed."""
    from nlbench.suspects import dataset, ranking

    examples, notes = dataset.with_rows(labelling, ranking.examples_of(labelling), where)
    found = ranking.rank(labelling, rows, score, examples)
    found.notes.extend(notes)
    return found


def _quality(
    suite: str,
    labellings: list[Labelling],
    rows: list[str],
    score: ScoreName | None,
    where: Whereabouts,
) -> QualityTable:
    from nlbench.suspects import dataset, quality
    from nlbench.suspects.scores import SCORES

    with_truth = []
    for one in labellings:
        with_truth.append((one, dataset.truth_of(one, dataset.open_data(one, where))))
    scores = list(SCORES) if score is None else [score.value]
    return quality.compare(suite, with_truth, rows, scores)


def _page(
    rankings: list[Ranking], top: int | None, where: Whereabouts, table: QualityTable | None
) -> str:
    """Return the page, without the pictures of data that is not there."""
    from nlbench.suspects import dataset, page

    notes: list[str] = []

    def data_of(ranking: Ranking) -> Dataset | None:
        try:
            return dataset.open_data(ranking.labelling, where)
        except UserError as error:
            notes.append(f"No pictures: {error}")
            return None

    data = {id(ranking): data_of(ranking) for ranking in rankings}
    notes = list(dict.fromkeys(notes))
    warn(*notes)
    return page.render(rankings, top, lambda ranking: data[id(ranking)], notes=notes, quality=table)


def _draw(rankings: list[Ranking], top: int | None, where: Whereabouts, path: Path) -> None:
    from nlbench.suspects import dataset, pictures

    first = rankings[0]
    if len(rankings) > 1:
        warn(
            f"{path}: shows the first of {len(rankings)} lists, {first.labelling.name}; "
            "--condition and --seed choose another"
        )
    data = dataset.open_data(first.labelling, where)
    pictures.write_grid(first, data, top, path)
    warn(f"{path}: written")


def _put(text: str, to: Path | None) -> None:
    """Print a text, or write it to a new file."""
    from nlbench.suspects import listing

    if to is None:
        write(text)
        return
    listing.write_text(text, to)
    warn(f"{to}: written")


# ---- relabel -------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "nlbench relabel train.csv --confirmed suspects.csv --to new.csv",
        "nlbench relabel all.csv --confirmed mine.csv --to labels.csv",
    )
)
@guarded
def relabel(
    listed: Annotated[
        Path,
        typer.Argument(
            metavar="LIST",
            help="Your list of images or positions with their labels, for example train.csv; or "
            "one of `nlbench suspects` with all examples. It is only read.",
        ),
    ],
    confirmed: Annotated[
        Path,
        typer.Option(
            help="The labels that you confirm: a list of `nlbench suspects` with its column "
            "`confirmed` filled in, or a table of your own with such a column. It is only read."
        ),
    ],
    to: Annotated[Path, typer.Option(help="The new file. Nothing is overwritten.")],
    label: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="The column of LIST with the labels that the runs were trained on, where its name "
            "does not tell.",
        ),
    ] = "",
) -> None:
    """Write a copy of a list of labels with those that a person has confirmed."""
    from nlbench.suspects.relabel import relabel as write_relabelled

    done = write_relabelled(listed, confirmed, to, label=label)
    say(
        f"{to}: {done.total:,} labels, of which {done.changed:,} are changed and {done.kept:,} "
        f"confirmed as they were; {done.open:,} lines of {confirmed} are undecided"
    )
