"""Commands for records of which one wants to be sure, or has from somebody else.

They are `reproduce` and `merge`.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlbench.cli import interrupt
from nlbench.cli.app import (
    DataDir,
    MethodsDir,
    Out,
    app,
    complete_suites,
    examples,
    guarded,
    say,
    warn,
)
from nlbench.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlbench.reproduction.again import Result

# The number of runs that are drawn where nobody says how many.
SAMPLE = 3


# ---- reproduce -----------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "nlbench reproduce results             # three runs, drawn by chance",
        "nlbench reproduce results --sample 10 --suite quick --jobs 2",
        "nlbench reproduce results 3f2a 91bc   # runs by their keys' beginnings",
        "nlbench reproduce results --from my.yaml --methods-dir my_methods",
    )
)
@guarded
def reproduce(
    out: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="The folder that holds the records.")
    ],
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY",
            help="Runs to train again, by their keys or the first characters. Without any, runs "
            "are drawn.",
        ),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            help=f"So many finished runs are drawn, or `all`. The default is {SAMPLE}.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Another seed draws other runs; the same one draws the same.")
    ] = 0,
    suite: Annotated[
        str | None, typer.Option(help="Draw among the runs of this suite of the folder.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SUITE",
            help="A suite that says where folders, label files, matrices and weights lie: records "
            "hold no paths.",
            autocompletion=complete_suites,
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda, cuda:1, or auto: the CPU for a run that was trained on one, else the "
            "first GPU."
        ),
    ] = "auto",
    jobs: Annotated[
        str, typer.Option(help="Number of runs to train in parallel on each device, or `auto`.")
    ] = "1",
    methods_dir: MethodsDir = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="MINUTES",
            help="End a run that shows no sign of life for so long; 0 for no limit.",
        ),
    ] = 60.0,
) -> None:
    """Train finished runs again, and compare their numbers with those of the records.

    They must be the same, bit for bit, where torch, NumPy, the device, its instructions, the
    kernels and oneDNN are. Elsewhere the labels must be the same, and the accuracy after the last
    epoch within three standard errors. A run that is reproduced bit for bit by today's code gets a
    note in its folder, and `table` no longer marks it as made by older code.

    Exit status: 0 all are reproduced; 1 one is not; 2 one could not be tried.
    """
    # The results until then are printed, and the same command would train all runs again.
    interrupt.keep_nothing()
    from nlbench.executors.progress import Progress
    from nlbench.plan.options import parse_jobs
    from nlbench.reproduction import again, draw
    from nlbench.reproduction.source import Options
    from nlbench.results.store import Store

    if keys and (sample is not None or suite is not None):
        option = "--sample" if sample is not None else "--suite"
        raise SuiteError(f"{option} and KEY exclude each other: a key names its run")
    store = Store(out, warn)
    chosen = draw.choose(store, keys or [], sample=_count(sample), seed=seed, suite=suite)
    if not keys:
        warn(
            f"{len(chosen)} finished run{'s' * (len(chosen) != 1)} of {out}, drawn with --seed "
            f"{seed}: {', '.join(chosen)}"
        )

    options = Options(device, data_dir, methods_dir, from_, parse_jobs(jobs), timeout)
    results = again.reproduce(
        store, chosen, options, listener=Progress, report=lambda result: say(_line(result))
    )
    say(_summary(results))
    status = _status(results)
    if status:
        raise typer.Exit(status)


def _count(sample: str | None) -> int | None:
    """Return the number of `--sample`, or None for `all`."""
    if sample == "all":
        return None
    text = str(SAMPLE) if sample is None else sample
    if not text.isdecimal() or int(text) == 0:
        raise SuiteError(f"--sample {text!r}: must be all or a number from 1 on")
    return int(text)


def _line(result: Result) -> str:
    return f"{result.key} {result.name}: {result.verdict.value}: {result.detail}"


def _summary(results: Sequence[Result]) -> str:
    from nlbench.results.comparison import Verdict

    counts = Counter(result.verdict for result in results)
    found = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict]]
    noted = sum(result.noted for result in results)
    ending = f"; {noted} noted in the store" if noted else ""
    return f"{len(results)} run{'s' * (len(results) != 1)}: {', '.join(found)}{ending}"


def _status(results: Sequence[Result]) -> int:
    from nlbench.results.comparison import Verdict

    verdicts = {result.verdict for result in results}
    if Verdict.DIFFERS in verdicts:
        return 1
    return 2 if Verdict.UNTRIED in verdicts else 0


# ---- merge ---------------------------------------------------------------------------------------


class TakeRun(StrEnum):
    ours = "ours"
    newer = "newer"
    theirs = "theirs"


@app.command(
    epilog=examples(
        "nlbench merge ../anna/results --dry-run   # what would be done",
        "nlbench merge ../anna/results --out results",
        "nlbench merge ../anna/results --take newer",
        "nlbench merge work --out results --small   # for a repository",
    )
)
@guarded
def merge(
    other: Annotated[
        Path,
        typer.Argument(metavar="OTHER", help="A colleague's folder of records. It is only read."),
    ],
    out: Out = Path("results"),
    take: Annotated[
        TakeRun,
        typer.Option(
            help="What to keep where both have a run with different numbers, or a suite with "
            "different rows. What is replaced is kept under another name."
        ),
    ] = TakeRun.ours,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    small: Annotated[
        bool,
        typer.Option(
            "--small",
            help="Of the runs that are taken, leave out weights, helper networks and all that "
            "predictions.npz has for each image but the predicted class.",
        ),
    ] = False,
) -> None:
    """Take a colleague's records into a folder, and say where the numbers of one run differ.

    Runs that only the other folder has are copied, with the suites that they belong to. Damaged
    ones are named and left out.

    Exit status: 0 everything of the other folder is here now; 1 numbers or suites differ, or
    something was left out; 2 there are no records in that folder, or none can be written here.
    """
    from nlbench.results.merge import Take
    from nlbench.results.merge import merge as merge_stores
    from nlbench.results.store import Store

    store = Store(out, warn)
    report = merge_stores(other, store, take=Take(take.value), dry_run=dry_run, small=small)
    say(*report.lines, *report.summary())
    if not report.complete:
        raise typer.Exit(1)
