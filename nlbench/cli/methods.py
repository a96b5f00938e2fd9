"""Commands for people who write a method: `check` and `new-method`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nlbench.cli import interrupt
from nlbench.cli.app import MethodsDir, app, complete_methods, examples, guarded, say, write


@app.command(
    epilog=examples(
        "nlbench check my_methods/my_loss.py",
        "nlbench check elr --set lam=7 --set beta=0.9",
        "nlbench check my_methods/my_loss.py --only resume",
    )
)
@guarded
def check(
    method: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A method's name, or the path of its file.",
            autocompletion=complete_methods,
        ),
    ],
    methods_dir: MethodsDir = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A hyperparameter, for example q=0.5. Repeatable. All others keep their defaults.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK", help="Run only this check and those it depends on. Repeatable."
        ),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="End a check that takes longer."),
    ] = 300.0,
) -> None:
    """Test a method: report what fails, where, and the likely fix.

    The method is trained in the real harness, on made-up data, in a process of its own.

    Exit status: 0 all checks passed; 1 a check failed; 2 there is no such method, file or
    hyperparameter.
    """
    # Not at the top of the file: `nlbench --help` must not wait for torch.
    from nlbench.conformance import apart
    from nlbench.plan.options import parse_set

    interrupt.keep_nothing()
    count = {"ok": 0, "FAIL": 0, "skipped": 0}
    results = apart.results(
        method,
        params=parse_set(set_ or []),
        methods_dir=methods_dir,
        only=only or (),
        patience=patience,
    )
    for result in results:
        # A check takes seconds, so each result is shown as soon as it is known.
        say(*result.lines())
        count[result.status] += 1

    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    write(f"{method}: {count['ok']} ok, {count['FAIL']} failed{skipped}\n")
    if count["FAIL"]:
        raise typer.Exit(1)


@app.command(
    "new-method",
    epilog=examples(
        "nlbench new-method my-loss              # writes my_methods/my_loss.py",
        "nlbench new-method my-loss --dir ideas",
    ),
)
@guarded
def new_method(
    name: Annotated[
        str, typer.Argument(help="The method's name in suites and tables, for example my-loss.")
    ],
    dir_: Annotated[Path, typer.Option("--dir", help="The folder for the new file.")] = Path(
        "my_methods"
    ),
) -> None:
    """Write a commented method file to start from.

    The file passes `nlbench check` as it is.
    """
    from nlbench.conformance import template

    path = template.write(name, dir_)
    # A suite names a method after its file, with hyphens.
    row = path.stem.replace("_", "-")
    write(
        f"wrote {path}; next:\n"
        f"  nlbench check {path}\n"
        f"  nlbench run my.yaml --methods-dir {dir_}    # my.yaml: a suite with the row `{row}`\n"
    )
