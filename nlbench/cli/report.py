"""Commands that show results to other people: `report` and `publish`."""

from __future__ import annotations

import shlex
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
    from nlbench.report.written import require_name, write_page
    from nlbench.results.store import Store

    # Making the page may take a while.
    require_name(to)
    store = Store(results, warn)
    methods = registry.method_files([methods_dir] if methods_dir else [])
    write_page(to, page.render(store, suite, methods))
    size = to.stat().st_size / 1_000_000
    say(f"{to}: written ({size:.1f} MB); it opens in any browser and asks for nothing else")
    # The page of a suite that was not asked for by its name is missing.
    if store.damaged_plans:
        raise typer.Exit(2)


@app.command(
    epilog=examples(
        "nlbench publish results public",
        "nlbench publish results public --suite cifar10n --license cc-by-4.0",
    )
)
@guarded
def publish(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="The folder that holds the records.")
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The folder to write: new, empty, or an earlier publication."
        ),
    ],
    suite: SuiteOption = None,
    licence: Annotated[
        str,
        typer.Option(
            "--license",
            help="The licence that you give the results, as Hugging Face names it: cc-by-4.0",
        ),
    ] = "unknown",
    methods_dir: MethodsDir = None,
) -> None:
    """Write a folder to publish: a Hugging Face dataset and a web page. Nothing is uploaded."""
    from nlbench import registry
    from nlbench.report import publication
    from nlbench.results.store import Store

    store = Store(results, warn)
    methods = registry.method_files([methods_dir] if methods_dir else [])
    made = publication.publish(store, folder, suite, licence=licence, methods=methods)
    records = "1 record" if made.records == 1 else f"{made.records:,} records"
    say(f"{folder}: {records}; {', '.join(made.files)}")
    if made.card_stays:
        say(f"{folder}/README.md was changed by hand and stays; without it, a new one is written")
    if licence == "unknown":
        say("The card names no licence; --license cc-by-4.0 would, for example.")
    place = shlex.quote(str(folder))
    say(
        "Nothing was uploaded. Records name machines, and messages of failed runs name paths: look "
        "through them first. Then",
        f"  hf upload OWNER/NAME {place} . --repo-type dataset",
        "makes it a dataset on Hugging Face (`pip install huggingface_hub`, `hf auth login`), and "
        "any web server or GitHub Pages shows the folder as it is, beginning with index.html.",
    )
    if store.damaged_plans:
        raise typer.Exit(2)
