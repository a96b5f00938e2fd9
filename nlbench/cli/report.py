"""Commands that show results to other people: `report` and `publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlbench.cli.app import MethodsDir, app, examples, guarded, say, warn

Results = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="The folder that holds the records.")
]
SuiteOption = Annotated[
    str | None,
    typer.Option("--suite", help="One of the suites in that folder. The default is all of them."),
]


@app.command(
    epilog=examples(
        "nlbench report results",
        "nlbench report results --suite quick --to quick.html",
    )
)
@guarded
def report(
    results: Results = Path("results"),
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The file to write.")] = Path(
        "report.html"
    ),
    suite: SuiteOption = None,
    methods_dir: MethodsDir = None,
) -> None:
    """Write everything that the records say as one HTML page, which opens without a network."""
    from nlbench import registry
    from nlbench.report import page
    from nlbench.report.written import write_page
    from nlbench.results.store import Store

    store = Store(results, warn)
    methods = registry.method_files([methods_dir] if methods_dir else [])
    write_page(to, page.render(store, suite, methods))
    size = to.stat().st_size / 1_000_000
    say(f"{to}: written ({size:.1f} MB); it opens in any browser and asks for nothing else")
    # The page of a suite that was not asked for by its name is missing.
    if store.damaged_plans:
        raise typer.Exit(2)
