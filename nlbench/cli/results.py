"""Commands that print records: `table`, `agreement`, `published` and `show`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlbench.cli.app import (
    MethodsDir,
    Out,
    PlainFormat,
    app,
    complete_methods,
    examples,
    guarded,
    listed,
    say,
    warn,
    width,
    write,
)
from nlbench.errors import SuiteError
from nlbench.results.metrics import METRICS
from nlbench.results.view import COLUMNS

if TYPE_CHECKING:
    from nlbench.results.cells import Results
    from nlbench.results.record import RunRecord
    from nlbench.results.store import Store

# `show` lists at most so many runs when a key is ambiguous or unknown.
MOST_LISTED = 20


# ---- table ---------------------------------------------------------------------------------------


class TableFormat(StrEnum):
    md = "md"
    csv = "csv"
    latex = "latex"
    html = "html"
    json = "json"


class Purpose(StrEnum):
    paper = "paper"


@app.command(
    epilog=examples(
        "nlbench table results",
        "nlbench table results --suite quick --only elr,gce --details",
        "nlbench table results --columns last,memorised,minus --against elr",
        "nlbench table results --sort last --group-by dataset,noise",
        "nlbench table results --for paper --format latex > table.tex",
    )
)
@guarded
def table(
    out: Annotated[Path, typer.Argument(help="The folder that holds the records.")] = Path(
        "results"
    ),
    suite: Annotated[
        str | None,
        typer.Option(help="One of the suites in that folder. The default is all of them."),
    ] = None,
    format_: Annotated[
        TableFormat,
        typer.Option(
            "--format",
            help="Markdown, LaTeX or HTML; CSV and JSON have every condition and metric.",
        ),
    ] = TableFormat.md,
    only: Annotated[
        str | None,
        typer.Option(help="Show these rows, and the one that differences are taken to: elr,gce"),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            help="Show this dataset with its labels or noise: its name, such as "
            '"CIFAR-10N worst", or a part of it. Repeatable.'
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Show these columns, with commas between them:" + listed(COLUMNS)),
    ] = None,
    details: Annotated[
        bool,
        typer.Option("--details", help="Show every column; one table per dataset and noise."),
    ] = False,
    metric: Annotated[
        str | None, typer.Option(help="Show this metric alone:" + listed(METRICS))
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="The row to compare all others with (paired differences): ce"),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Show published numbers beside the measured ones; one table per dataset and "
            "noise.",
        ),
    ] = False,
    sort: Annotated[
        str | None,
        typer.Option(
            help="Sort the rows by this column, the best first: method, a column of --columns, or "
            'a dataset with its noise as tables print it, such as "CIFAR-10N worst".'
        ),
    ] = None,
    ascending: Annotated[
        bool | None,
        typer.Option("--ascending/--descending", help="With --sort: the lowest or highest first."),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help='A table for each "dataset", for each "noise", or for each pair of them, '
            '"dataset,noise".'
        ),
    ] = None,
    purpose: Annotated[
        Purpose | None,
        typer.Option(
            "--for",
            help="The table that a paper prints: the best mean bold, with the next best ones "
            "before the first that can be told apart from it, and protocol, seeds and test in the "
            "caption.",
        ),
    ] = None,
    methods_dir: MethodsDir = None,
) -> None:
    """Print the tables of the suites in a folder of records."""
    from nlbench import registry
    from nlbench.plan.options import parse_list, parse_only
    from nlbench.results import table as tables
    from nlbench.results.store import Store

    store = Store(out, warn)
    text = tables.render_suites(
        store,
        suite,
        methods=registry.method_files([methods_dir] if methods_dir else []),
        conditions=condition or (),
        fmt=format_.value,
        metric=metric,
        against=against,
        details=details,
        published=published,
        columns=() if columns is None else parse_list("--columns", columns, "columns as last,best"),
        only=() if only is None else parse_only(only),
        width=width(),
        sort=sort,
        ascending=ascending,
        group_by=group_by,
        purpose=None if purpose is None else purpose.value,
    )
    write(text)
    # The table of a suite that was not asked for by its name is missing.
    if store.damaged_plans:
        raise typer.Exit(2)


# ---- agreement -----------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "nlbench agreement cifar10n-fast cifar10n",
        "nlbench agreement cifar10n published --metric best",
    )
)
@guarded
def agreement(
    a: Annotated[str, typer.Argument(metavar="A", help="A suite in the folder of records.")],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", help="Another suite; or `published`: each published source on its own."
        ),
    ],
    out: Out = Path("results"),
    out_b: Annotated[
        Path | None, typer.Option(help="The folder with the records of B. The default is --out.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="The metric that orders the methods:" + listed(METRICS))
    ] = "last",
    condition: Annotated[
        list[str] | None,
        typer.Option(
            help='A dataset with its labels as tables print it, for example "CIFAR-10N worst". '
            "Give it twice for one of A and one of B. The default is all that both share."
        ),
    ] = None,
    methods_dir: MethodsDir = None,
) -> None:
    """Compare the order of methods in two suites (Kendall's tau-b)."""
    if b == "published" and out_b is not None:
        raise SuiteError("--out-b is for a second suite; published numbers are in no folder")
    from nlbench import registry
    from nlbench.results import agreement as agreements
    from nlbench.results.cells import Results
    from nlbench.results.store import Store

    methods = registry.method_files([methods_dir] if methods_dir else [])

    def results(folder: Path, suite: str) -> Results:
        store = Store(folder, warn)
        return Results(store.plan_of(suite), store, methods)

    first = results(out, a)
    conditions = condition or ()
    if b == "published":
        report = agreements.with_published(first, metric=metric, conditions=conditions)
    else:
        # The same suite of the same folder must be known as such.
        is_same = b == a and out.resolve() == (out_b or out).resolve()
        second = first if is_same else results(out_b or out, b)
        report = agreements.between(first, second, metric=metric, conditions=conditions)
    say(report.rstrip("\n"))


# ---- published -----------------------------------------------------------------------------------


@app.command(
    "published",
    epilog=examples(
        "nlbench published --method elr --dataset cifar10",
        "nlbench published --noise worst --format csv > published.csv",
    ),
)
@guarded
def published_numbers(
    dataset: Annotated[
        str | None, typer.Option(help="Those on this dataset, for example cifar10 or clothing1m.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Those of this method, for example elr or dividemix.")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Those under this noise, for example sym, sym-0.4, asym, worst or "
            "symmetric-inclusive."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Those of this network, for example resnet34.")
    ] = None,
    format_: Annotated[
        PlainFormat, typer.Option("--format", help="Markdown with sources, or CSV.")
    ] = PlainFormat.md,
) -> None:
    """Print published numbers with their sources; no run is needed."""
    from nlbench.results.published import listing, records

    found = records.select(dataset=dataset, method=method, noise=noise, model=model)
    write(listing.render(found, format_.value, width()))


# ---- show ----------------------------------------------------------------------------------------


def complete_what(incomplete: str) -> list[str]:
    """Return the word `method`; a run's key is known only with its store."""
    return [word for word in ("method",) if word.startswith(incomplete)]


@app.command(
    epilog=examples(
        "nlbench show method elr           # hyperparameters, defaults, their sources",
        "nlbench show method my-loss --methods-dir my_methods",
        "nlbench show 1f3a --out results   # a run's record, by its key's beginning",
    )
)
@guarded
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="KEY|method",
            help="A run's key, or its first characters; or the word `method`.",
            autocompletion=complete_what,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(help="After `method`: its name.", autocompletion=complete_methods),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder that holds the records. The default is results."),
    ] = None,
    methods_dir: MethodsDir = None,
) -> None:
    """Print a run's whole record, or what a method is and takes."""
    if what != "method":
        if name is not None:
            raise SuiteError(f"{what} {name}: give one key, or `nlbench show method {name}`")
        if methods_dir is not None:
            raise SuiteError("--methods-dir is for `nlbench show method NAME`; a record needs none")
        _show_record(what, out or Path("results"))
        return

    if name is None:
        raise SuiteError("method: give its name, too; `nlbench list methods` lists all")
    if out is not None:
        raise SuiteError("--out is for records; `nlbench show method NAME` reads none")
    from nlbench.cli import method_page
    from nlbench.conformance.runner import find_method

    write(method_page.page(find_method(name, methods_dir), width()))


def _show_record(key: str, out: Path) -> None:
    import json

    from nlbench.errors import StoreError
    from nlbench.results.store import Store

    store = Store(out, warn)
    store.require()
    keys = [k for k in store.run_keys() if k.startswith(key)]
    if len(keys) != 1:
        found = f"begins {len(keys)} runs" if keys else "begins no run"
        candidates = keys or store.run_keys()
        lines = [f"key {key!r} {found} in {out}" + ("; there are:" if candidates else "")]
        for other in candidates[:MOST_LISTED]:
            record = store.read(other)
            if record is not None:
                lines.append(_in_a_line(record))
        if len(candidates) > MOST_LISTED:
            lines.append(f"and {len(candidates) - MOST_LISTED} more")
        raise StoreError("\n".join(lines))

    record = store.read(keys[0])
    if record is None:
        raise StoreError(f"{keys[0]}: its record could not be read; run its suite again")
    values = record.as_json()
    trace = (values["error"] or {}).pop("traceback", "")
    write(f"{json.dumps(values, indent=2)}\n")
    # A traceback is readable only outside of the JSON text.
    if trace:
        write(trace)


def _in_a_line(record: RunRecord) -> str:
    spec = record.spec
    labels, noise = spec.get("labels", ""), spec.get("noise")
    if isinstance(noise, dict):
        labels = f"{noise.get('kind', '')} {noise.get('rate', '')}".strip()
    run = f"{spec['method']} · {spec.get('dataset', '')} {labels} · seed {spec['seed']}"
    return f"{record.key}  {run} · {record.status}"


# ---- forget --------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "nlbench forget trial --out results --dry-run",
        "nlbench forget trial --out results",
    )
)
@guarded
def forget(
    suite: Annotated[str, typer.Argument(help="A suite in the folder of records.")],
    out: Out = Path("results"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be dropped and what stays.")
    ] = False,
) -> None:
    """Drop a suite's plan, so that its table is no longer printed. No record is removed."""
    from nlbench.errors import SuiteError, unknown_name
    from nlbench.results.store import Store

    store = Store(out, warn)
    store.require()
    names = store.plan_names()
    if suite not in names:
        raise SuiteError(unknown_name(f"suite of {out}", suite, names))

    stays = _what_stays(store, suite, [name for name in names if name != suite])
    if dry_run:
        say(f"{suite}: would be dropped. {stays}")
        return
    renamed = store.forget(suite)
    say(f"{suite}: dropped. {stays}")
    say(f"To undo it, rename {renamed} to {store.plan_path(suite).name}.")


def _what_stays(store: Store, suite: str, others: list[str]) -> str:
    """Say how many records a suite has, and how many of them no other suite has."""
    from nlbench.errors import StoreError

    try:
        own = store.keys_of_plans([suite]) & set(store.run_keys())
        alone = own - store.keys_of_plans(others)
    except StoreError as error:
        return f"All records stay. Which of them no suite has is unknown: {error}"
    records = "1 record stays" if len(own) == 1 else f"{len(own)} records stay"
    return f"Its {records} in {store.root / 'runs'}; {len(alone)} of them are in no other suite."
