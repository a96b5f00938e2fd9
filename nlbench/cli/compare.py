"""The command `compare`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlbench.cli.app import MethodsDir, Out, app, examples, guarded, listed, warn, width, write
from nlbench.errors import SuiteError
from nlbench.results.metrics import METRICS

if TYPE_CHECKING:
    from nlbench.results.store import Store


class CompareFormat(StrEnum):
    md = "md"
    json = "json"
    words = "words"


@app.command(
    epilog=examples(
        "nlbench compare elr gce --suite quick",
        "nlbench compare elr gce --suite quick --power 0.5",
        "nlbench compare elr elr --suite quick --suite-b trial --across-protocols",
    )
)
@guarded
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A row of a suite.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The row that it is compared with.")],
    out: Out = Path("results"),
    suite: Annotated[
        str | None,
        typer.Option(help="The suite of A. The default is the only one that has both rows."),
    ] = None,
    suite_b: Annotated[
        str | None, typer.Option(help="The suite of B, where it is another one.")
    ] = None,
    out_b: Annotated[
        Path | None, typer.Option(help="The folder with the records of B. The default is --out.")
    ] = None,
    metric: Annotated[str, typer.Option(help="The metric to compare:" + listed(METRICS))] = "last",
    condition: Annotated[
        list[str] | None,
        typer.Option(
            help='A dataset with its labels as tables print it, for example "CIFAR-10N worst". '
            "The default is all in which both rows have results. With --across-labels, give those "
            "of A and of B."
        ),
    ] = None,
    power: Annotated[
        float | None,
        typer.Option(
            help="Say how many seeds find this difference, in the points or the unit that the "
            "table prints: 0.5"
        ),
    ] = None,
    across_protocols: Annotated[
        bool,
        typer.Option(
            "--across-protocols",
            help="Compare rows of two suites also if their protocols differ, and say in what.",
        ),
    ] = False,
    across_labels: Annotated[
        bool,
        typer.Option(
            "--across-labels",
            help="Compare A and B on the same images with other labels or noise.",
        ),
    ] = False,
    format_: Annotated[
        CompareFormat,
        typer.Option(
            "--format",
            help="Markdown; JSON for programs; or the words alone: a sentence for each condition, "
            "and what else differs.",
        ),
    ] = CompareFormat.md,
    methods_dir: MethodsDir = None,
) -> None:
    """Compare two rows seed by seed: difference, interval, and what the seeds can show."""
    from nlbench import registry
    from nlbench.results import two_rows, two_rows_text
    from nlbench.results.cells import Results
    from nlbench.results.metrics import check_metric
    from nlbench.results.store import Store

    check_metric(metric)
    if power is not None and not 0 < power < float("inf"):
        raise SuiteError(f"--power {power:g}: give a difference above 0, such as 0.5")

    methods = registry.method_files([methods_dir] if methods_dir else [])
    store = Store(out, warn)
    is_one_suite = suite_b is None and out_b is None
    name = suite or _suite_with(store, (a, b) if is_one_suite else (a,))
    first = second = Results(store.plan_of(name), store, methods)
    name_b, folder_b = suite_b or name, out_b or out
    if (name_b, folder_b.resolve()) != (name, out.resolve()):
        other = Store(folder_b, warn)
        second = Results(other.plan_of(name_b), other, methods)

    difference = None if power is None else power / METRICS[metric].scale
    options = two_rows.Options(metric, condition or (), difference, across_protocols, across_labels)
    found = two_rows.compare(first, a, second, b, options)
    if format_ is CompareFormat.json:
        write(two_rows_text.as_json(found) + "\n")
    elif format_ is CompareFormat.words:
        write(two_rows_text.as_words(found, width()))
    else:
        write(two_rows_text.as_markdown(found, width()))


def _suite_with(store: Store, rows: tuple[str, ...]) -> str:
    """Return the only suite that has these rows. Raises SuiteError for none and for several."""
    from nlbench.errors import did_you_mean

    found, known = [], set()
    for name, plan in store.plans().items():
        names = {row["row"] for row in plan["rows"]}
        known |= names
        if names.issuperset(rows) and not plan["tries"]:
            found.append(name)
    if len(found) == 1:
        return found[0]
    wanted = " and ".join(rows)
    if found:
        raise SuiteError(
            f"{wanted}: several suites have them; choose with --suite {'|'.join(found)}"
        )

    hints = "".join(did_you_mean(row, sorted(known)) for row in rows if row not in known)
    raise SuiteError(
        f"{wanted}: no suite of {store.root} has {'them' if len(rows) > 1 else 'it'}. Rows there "
        f"are: {', '.join(sorted(known)) or 'none'}.{hints}"
    )
