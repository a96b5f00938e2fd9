"""The command `plot`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlbench.cli.app import MethodsDir, app, examples, guarded, listed, say, warn
from nlbench.errors import SuiteError, look_up
from nlbench.figures import KINDS, Kind, Options, condition_of
from nlbench.figures.options import COLUMN, PAGE
from nlbench.results.metrics import METRICS

if TYPE_CHECKING:
    from nlbench.results.cells import Results

# Millimetres that --width takes.
_NARROWEST, _WIDEST = 75.0, 600.0
_ENDINGS = (".png", ".svg", ".pdf")


class Cost(StrEnum):
    seconds = "seconds"
    passes = "passes"


def complete_kinds(incomplete: str) -> list[str]:
    """Return the kinds of figures, each with what it shows."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _kinds_in_words() -> str:
    """Return the help of KIND: a line for each."""
    lines = [f"{kind.name}: {kind.help}" for kind in KINDS.values()]
    return "\n\n".join(["What to draw.", *lines])


@app.command(
    epilog=examples(
        "nlbench plot epochs results --suite quick",
        "nlbench plot epochs results --suite quick --only ce,elr,gce --to epochs.pdf",
        "nlbench plot epochs results --suite mine --metric val_accuracy",
        "nlbench plot memorisation results --suite quick --only ce,elr",
        "nlbench plot differences results --suite cifar10n-features --condition worst",
        "nlbench plot cost results --suite quick --cost passes --width wide",
        "nlbench plot agreement results --suite cifar10n-fast --suite-b cifar10n",
    )
)
@guarded
def plot(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help=_kinds_in_words(),
            autocompletion=complete_kinds,
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="The folder that holds the records.")
    ] = Path("results"),
    suite: Annotated[
        str | None,
        typer.Option(help="One of the suites in that folder. Needed where there are several."),
    ] = None,
    suite_b: Annotated[
        str | None, typer.Option(help="For agreement: the suite to compare with.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Draw these rows: elr,gce")] = None,
    highlight: Annotated[
        str | None,
        typer.Option(
            help="Draw these rows in colour, with the best one and the baseline; others are grey."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="The metric; for epochs a column of history.csv, such as val_accuracy:"
            + listed(METRICS)
        ),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            help='A dataset with its labels as tables print it, or a part of that: "worst". The '
            "default is the first one that has something to draw. For ranks, give one for each "
            "dataset, and for agreement twice: one of each suite."
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The row to compare all others with. The default is ce.")
    ] = None,
    cost: Annotated[
        Cost, typer.Option(help="For cost: seconds of training, or forward passes.")
    ] = Cost.seconds,
    to: Annotated[
        Path | None,
        typer.Option(help="The .png, .svg or .pdf file to write. The default is KIND.png."),
    ] = None,
    width: Annotated[
        str,
        typer.Option(help=f"Width as 85mm; column is {COLUMN:g}mm, and wide is {PAGE:g}mm."),
    ] = "column",
    methods_dir: MethodsDir = None,
) -> None:
    """Draw a figure of a suite's results."""
    from nlbench.plan.options import parse_list, parse_only

    chosen = look_up("kind", kind, KINDS)
    path = to or Path(f"{kind}.png")
    if path.suffix.lower() not in _ENDINGS:
        raise SuiteError(f"--to {path}: the name must end in {', '.join(_ENDINGS)}")
    millimetres = _width(width)

    if suite_b is not None and not chosen.two_sides:
        raise SuiteError(f"--suite-b: {kind} shows one suite; leave it out")
    results = _results(out, suite, methods_dir)
    other = results
    if suite_b not in (None, results.suite):
        other = _results(out, suite_b, methods_dir)
    conditions = _places(chosen, results, other, condition or ())
    options = Options(
        condition=conditions[0] if len(conditions) == 1 else None,
        conditions=conditions,
        other=other,
        metric=metric,
        only=() if only is None else parse_only(only),
        highlight=()
        if highlight is None
        else parse_list("--highlight", highlight, "rows as ce,elr"),
        against=against,
        cost=cost.value,
        width=millimetres,
    )
    figure = chosen.draw(results, options)
    figure.write(path, path.suffix.lower())

    size = figure.get_size_inches() * 25.4
    say(f"{path}: {figure.heading}, {size[0]:.0f} x {size[1]:.0f} mm")
    for line in figure.notes:
        say(f"  {line}")
    if chosen.one_condition and not conditions and len(results.conditions) > 1:
        others = [title for title in results.conditions if title != figure.heading]
        say(f"  Other conditions, for --condition: {'; '.join(others)}.")


def _places(kind: Kind, results: Results, other: Results, names: Sequence[str]) -> list[int]:
    """Return the places of the conditions to draw. Raises SuiteError."""
    if kind.two_sides:
        if len(names) > 2:
            raise SuiteError(
                f"--condition: {kind.name} compares two conditions; got it {len(names)} times"
            )
        if not names:
            return []
        return [condition_of(results, names[0]), condition_of(other, names[-1])]
    if len(names) > 1 and kind.name != "ranks":
        raise SuiteError(f"--condition: {kind.name} shows one condition; give one")
    return [condition_of(results, name) for name in names]


def _width(text: str) -> float:
    """Return the millimetres of --width. Raises SuiteError."""
    named = {"column": COLUMN, "wide": PAGE}
    if text in named:
        return named[text]
    match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,3})?)\s*(mm|cm|in)", text.strip())
    if match is None:
        raise SuiteError(
            f"--width {text!r}: write column, wide, or a length as 85mm, 8.5cm or 3.3in"
        )
    millimetres = float(match[1]) * {"mm": 1.0, "cm": 10.0, "in": 25.4}[match[2]]
    if not _NARROWEST <= millimetres <= _WIDEST:
        raise SuiteError(
            f"--width {text}: must be from {_NARROWEST:g}mm to {_WIDEST:g}mm; text keeps its size, "
            "so a narrower figure would have no room for it"
        )
    return millimetres


def _results(out: Path, suite: str | None, methods_dir: Path | None) -> Results:
    """Read the results of one suite of a store. Raises StoreError, SuiteError."""
    from nlbench import registry
    from nlbench.results.cells import Results
    from nlbench.results.store import Store

    store = Store(out, warn)
    if suite is not None:
        plan = store.plan_of(suite)
    else:
        plans = store.plans()
        # The tries of a tuned suite are drawn only when their name is given.
        plans = {name: found for name, found in plans.items() if not found["tries"]} or plans
        if len(plans) > 1:
            raise SuiteError(f"{out}: holds several suites; --suite chooses: {', '.join(plans)}")
        plan = next(iter(plans.values()))
    return Results(plan, store, registry.method_files([methods_dir] if methods_dir else []))
