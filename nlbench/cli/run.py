"""The command `run`."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    width,
    write,
)
from nlbench.cli.started import started
from nlbench.errors import BudgetSpent, DataMissing, SuiteError, UserError

if TYPE_CHECKING:
    from nlbench.api import Sweep
    from nlbench.plan.shards import Shard


# The exit status that says there is more to do. sysexits.h calls it EX_TEMPFAIL.
LEFT = 75


# Bytes that a method keeps.
WORTH_SAYING = 100_000_000


class Stale(StrEnum):
    keep = "keep"
    rerun = "rerun"


# ---- Options -----------------------------------------------------------------------------------

SuiteName = Annotated[
    str,
    typer.Argument(
        help="A suite file, or the name of a suite that comes with nlbench.",
        autocompletion=complete_suites,
    ),
]
Only = Annotated[str | None, typer.Option(help="Train and show these rows only: ce,elr")]
Seeds = Annotated[str | None, typer.Option(help="Train these seeds only: 0,1 or 0-4")]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        help="Train on this dataset with its labels or noise only, and show it: its name as in "
        'tables, such as "CIFAR-10N worst", or a part of it. Repeatable. The data of the whole '
        "suite must be there.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value of the protocol: epochs=2. Repeatable."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")]
Gpus = Annotated[str | None, typer.Option(help="Distribute the runs over these GPUs: 0,2")]
ParallelJobs = Annotated[
    str | None,
    typer.Option(
        help="Number of runs to train in parallel on each device, or `auto` (as many as the CPU "
        "cores allow). The default is 1; with --executor ray it is as many as the nodes have room "
        "for, and a number limits them."
    ),
]
ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="workers (the default), local (trains in this process) or ray (a Ray cluster).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="With --executor ray: the cluster, or `auto` for the one that this machine is in. "
        "Without it, Ray is started on this machine for this command.",
    ),
]
GpusPerRun = Annotated[
    float | None,
    typer.Option(
        metavar="PART",
        help="With --executor ray: the part of a GPU that is reserved for each run; 0.25 lets four "
        "runs share one. The default is 1.",
    ),
]
CudaGraphs = Annotated[
    bool | None,
    typer.Option(
        "--cuda-graphs/--no-cuda-graphs",
        help="On a GPU, replay default training steps as CUDA graphs: the same results, sooner. "
        "The default is on for nlbench's own models and off for others.",
        show_default=False,
    ),
]
WholeSteps = Annotated[
    bool,
    typer.Option(
        "--whole-steps",
        help="On a GPU, capture whole training steps as one CUDA graph, where the method allows "
        "it: the same results. Steps of models of torchvision and timm are captured only with "
        "--cuda-graphs beside it. Not measured on a GPU yet, so it is off by default.",
    ),
]
SaveWeights = Annotated[
    bool,
    typer.Option(
        "--save-weights",
        help="Keep the weights of the final networks of each run that is trained now, beside its "
        "record; nlbench.load_weights reads them.",
    ),
]
SaveProbabilities = Annotated[
    bool,
    typer.Option(
        "--save-probabilities",
        help="Keep the predicted probabilities of all training, validation and test images of each "
        "run that is trained now, as float16. Those of few images are always kept.",
    ),
]
RecordGradients = Annotated[
    bool,
    typer.Option(
        "--record-gradients",
        help="Keep, for each epoch, the mean gradient at the true class for right and for wrong "
        "labels, each term of the loss apart. For methods that tell them apart: ce and elr, and "
        "yours with the hook gradient_parts; not elr-plus.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Train the I-th of N parts of the runs, I from 1 on: for the tasks of a job array "
        "that share --out.",
    ),
]
Leftovers = Annotated[
    bool,
    typer.Option(
        "--leftovers/--no-leftovers",
        help="After a shard's own runs, train those of other shards that nobody has begun.",
    ),
]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Write the metrics of each epoch for TensorBoard, to OUT/tensorboard.",
    ),
]
TensorBoardDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The same, to this folder instead."),
]
Wandb = Annotated[
    str | None,
    typer.Option(
        metavar="PROJECT", help="Send the metrics of each epoch to a project of Weights & Biases."
    ),
]
MLflow = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        metavar="URI|EXPERIMENT",
        help="Send the metrics of each epoch to the MLflow at this address, or to an experiment of "
        "the MLflow that $MLFLOW_TRACKING_URI names.",
    ),
]
LoggerFile = Annotated[
    list[str] | None,
    typer.Option(
        "--logger",
        metavar="FILE[:VALUE]",
        help="Send the metrics of each epoch to a logger of your own: a Python file. Repeatable.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only count the runs that are done, missing and failed.")
]
Prepare = Annotated[
    bool,
    typer.Option(
        "--prepare",
        help="Only get what the runs need: check the suite, fetch its data and published weights, "
        "and decode the data. For machines without network; needs no GPU.",
    ),
]
StaleRecords = Annotated[
    Stale,
    typer.Option(help="Keep or train again the records made by an older version of the code."),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Train one run only; open pdb where it fails.")
]
CheckpointSeconds = Annotated[
    float,
    typer.Option(
        min=0,
        help="A run writes a checkpoint at the end of an epoch, and in a long epoch between two "
        "steps, if the last one is so old.",
    ),
]
CheckpointEpochs = Annotated[
    int,
    typer.Option(
        min=0, help="A run also writes a checkpoint after so many epochs; 0 for no such rule."
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Stop in time before 6h, 90m, 3600s or 1:30:00 have passed since the command's "
        "start. Runs that are left then have checkpoints, and the exit status is 75.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="MINUTES",
        help="End a run that shows no sign of life for so long, as failed; 0 for no limit.",
    ),
]

# ---- The command -------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "nlbench run quick --jobs 2",
        "nlbench run quick --only ce,elr --seeds 0-1 --set epochs=10",
        "nlbench run my.yaml --methods-dir my_methods --out results",
        "nlbench run cifar10n-cpu --dry-run",
        "nlbench run cifar10n --prepare",
        "nlbench run quick --shard 2/8 --out /shared/results",
        "nlbench run cifar10n --budget 23h     # in a job of 24 hours",
        "nlbench run quick --tensorboard",
    )
)
@guarded
def run(
    suite: SuiteName,
    out: Out = Path("results"),
    only: Only = None,
    seeds: Seeds = None,
    condition: Conditions = None,
    set_: Settings = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    gpus: Gpus = None,
    jobs: ParallelJobs = None,
    executor: ExecutorName = None,
    address: Address = None,
    gpus_per_run: GpusPerRun = None,
    cuda_graphs: CudaGraphs = None,
    whole_steps: WholeSteps = False,
    save_weights: SaveWeights = False,
    save_probabilities: SaveProbabilities = False,
    record_gradients: RecordGradients = False,
    dry_run: DryRun = False,
    prepare_only: Prepare = False,
    methods_dir: MethodsDir = None,
    stale: StaleRecords = Stale.keep,
    shard: ShardOption = None,
    leftovers: Leftovers = True,
    debug: Debug = False,
    checkpoint_seconds: CheckpointSeconds = 10.0,
    timeout: Timeout = 60.0,
    checkpoint_epochs: CheckpointEpochs = 0,
    budget: Budget = None,
    tensorboard: TensorBoard = False,
    tensorboard_dir: TensorBoardDir = None,
    wandb: Wandb = None,
    mlflow: MLflow = None,
    logger: LoggerFile = None,
) -> None:
    """Train the runs that a suite still lacks, then print its table.

    Exit status: 0 all runs are done; 1 a run failed or diverged; 2 the suite or its data is
    wrong and nothing ran; 75 the time of --budget is over and runs are left; 130 interrupted by
    Ctrl-C, 143 by SIGTERM or SIGUSR1. After 75, 130 and 143 the same command continues.
    """
    from nlbench import api
    from nlbench.executors import Choice
    from nlbench.plan.options import (
        devices_of_gpus,
        parse_jobs,
        parse_only,
        parse_seeds,
        parse_set,
    )

    beside_debug = {
        "--dry-run": dry_run,
        "--prepare": prepare_only,
        "--jobs": jobs not in (None, "1"),
        "--executor": executor is not None,
        "several GPUs": "," in (gpus or device),
        "--shard": shard is not None,
        "--save-weights": save_weights,
        "--save-probabilities": save_probabilities,
        "--record-gradients": record_gradients,
        "--cuda-graphs": cuda_graphs is not None,
        "--whole-steps": whole_steps,
        "--checkpoint-seconds": checkpoint_seconds != 10.0,
        "--checkpoint-epochs": checkpoint_epochs != 0,
        "--timeout": timeout != 60.0,
        "--budget": budget is not None,
        "--tensorboard": tensorboard or tensorboard_dir is not None,
        "--wandb": wandb is not None,
        "--mlflow": mlflow is not None,
        "--logger": bool(logger),
    }
    for_gpus = {"--cuda-graphs": bool(cuda_graphs), "--whole-steps": whole_steps}
    _refuse_idle_options(debug, beside_debug, for_gpus, device)
    if prepare_only and dry_run:
        raise SuiteError("--prepare and --dry-run exclude each other: --dry-run fetches nothing")
    if executor == "local":
        _refuse_beside_local({option: beside_debug[option] for option in ("--jobs", "--timeout")})
    part = _shard(shard, leftovers)
    rows = None if only is None else parse_only(only)
    only_seeds = None if seeds is None else parse_seeds(seeds)
    overrides = parse_set(set_ or [])
    choice = Choice.of_user(executor, address, gpus_per_run)
    # Kept as a function, because a tuned suite is prepared once for its tries and once for what
    # they chose.
    prepare = functools.partial(
        api.prepare,
        suite,
        out=out,
        only=rows,
        seeds=only_seeds,
        conditions=condition or None,
        overrides=overrides,
        data_dir=data_dir,
        device=device if gpus is None else devices_of_gpus(gpus, device),
        methods_dir=methods_dir,
        stale=stale.value,
        executor=choice,
        shard=part,
        warn=warn,
    )
    parallel_jobs = None if jobs is None else parse_jobs(jobs)
    loggers = _loggers(tensorboard, tensorboard_dir, wandb, mlflow, logger or ())
    ends = _end_of(budget)
    if prepare_only:
        from nlbench.cli.prepare import prepare_suite

        prepare_suite(suite, functools.partial(prepare, elsewhere=True), data_dir)
        return
    ahead: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if not dry_run and not debug:
        ahead = api.started_ahead(
            suite,
            out=out,
            only=rows,
            seeds=only_seeds,
            conditions=condition or None,
            overrides=overrides,
            stale=stale.value,
            executor=choice,
            shard=part,
        )
    with ahead:
        sweep = _checked(prepare, suite, gpus, needs_devices=not dry_run)
        if sweep.state.stale and stale is Stale.keep:
            warn(api.stale_records(len(sweep.state.stale)))
        if dry_run:
            lines, warnings = sweep.about_data()
            say(_counts(sweep), *_counts_of_shard(sweep), *lines, *sweep.about_memory())
            warn(*(f"warning: {line}" for line in warnings))
            return
        if debug:
            _debug(sweep)
            return

        from nlbench.executors.progress import Progress
        from nlbench.watching.feed import watching

        def train(sweep: Sweep) -> None:
            warn(*_counts_of_shard(sweep), *sweep.about_memory(above=WORTH_SAYING))
            # The sweep prints these warnings before it trains.
            told = sweep.about_data(folders_only=True)[1]
            ways = sweep.ways_to_be_faster(parallel_jobs)
            faster = [f"{way.option} {way.effect}" for way in ways]
            with Progress(len(sweep.state.todo), told=told, faster=faster) as progress:
                sweep.run(
                    watch.listener(sweep.plan, sweep.store, progress),
                    checkpoint_seconds=checkpoint_seconds,
                    checkpoint_epochs=checkpoint_epochs,
                    jobs=parallel_jobs,
                    cuda_graphs=cuda_graphs,
                    whole_steps=whole_steps,
                    save_weights=save_weights,
                    save_probabilities=save_probabilities,
                    record_gradients=record_gradients,
                    timeout=timeout,
                    ends=ends,
                )

        with watching(loggers if sweep.state.todo else (), out, warn) as watch:
            sweep = _train_stages(sweep, prepare, train)
    # The tries of a tuned suite have rows of their own.
    shown = rows if rows is not None and not sweep.plan.tries else ()
    _print_results(sweep, shown, condition or (), out)


def _checked(
    prepare: Callable[[], Sweep], suite: str, gpus: str | None, *, needs_devices: bool
) -> Sweep:
    """Prepare the sweep. Raises UserError in the words of the options that were typed.

    Args:
        needs_devices: a device that is not there is an error even where no run is left to train.
    """
    try:
        sweep = prepare()
        if needs_devices:
            sweep.devices()
    except DataMissing as error:
        raise DataMissing(
            f"the suite's data is not there; nothing was trained\n{error}\n`nlbench run {suite} "
            "--prepare` gets what can be downloaded, on a machine with network"
        ) from None
    except SuiteError as error:
        if gpus is None:
            raise
        # The option that was typed, and not the one that it stands for.
        raise SuiteError(_as_gpus(str(error))) from None
    return sweep


def _shard(text: str | None, leftovers: bool) -> Shard | None:
    """Return the shard that the options name. Raises SuiteError."""
    from nlbench.plan.options import parse_shard

    if text is not None:
        return parse_shard(text, leftovers)
    if not leftovers:
        raise SuiteError("--no-leftovers is for --shard I/N; without it there is one part alone")
    return None


def _loggers(
    tensorboard: bool,
    folder: Path | None,
    project: str | None,
    mlflow: str | None,
    files: Sequence[str],
) -> list[str]:
    """Return the loggers that the options name. Raises UserError for one that cannot be used."""
    from nlbench.watching.choice import parse

    found = list(files)
    if folder is not None:
        found.append(f"tensorboard:{folder}")
    elif tensorboard:
        found.append("tensorboard")
    if project is not None:
        found.append(f"wandb:{project}")
    if mlflow is not None:
        found.append(f"mlflow:{mlflow}")
    # Before the suite's data is read, which may take long.
    for text in found:
        parse(text)
    return found


def _refuse_idle_options(
    debug: bool, beside_debug: dict[str, bool], for_gpus: dict[str, bool], device: str
) -> None:
    """Raise SuiteError for options of which one has no effect beside the other.

    Args:
        beside_debug: options that `--debug` does not use, and whether they are given.
        for_gpus: options that have an effect on a GPU alone, and whether they are given.
    """
    for option, given in beside_debug.items():
        if debug and given:
            reason = "--debug trains one run in this process, on one device, and keeps no weights"
            if option in ("--dry-run", "--prepare"):
                reason = f"{option} trains nothing"
            raise SuiteError(f"--debug and {option} exclude each other: {reason}")
    for option, given in for_gpus.items():
        if given and device == "cpu":
            raise SuiteError(f"{option} and --device cpu exclude each other: they need a GPU")


def _refuse_beside_local(given: dict[str, bool]) -> None:
    """Raise SuiteError for options that `--executor local` does not use, if they are given."""
    for option, is_given in given.items():
        if is_given:
            raise SuiteError(
                f"--executor local and {option} exclude each other: it trains one run after the "
                "other in this process, and cannot end one that hangs"
            )


def _as_gpus(message: str) -> str:
    """Return a message about `--device cuda:0,cuda:1` as one about `--gpus 0,1`."""
    return re.sub(
        r"--device (cuda:\d+(?:,cuda:\d+)*)",
        lambda found: "--gpus " + found[1].replace("cuda:", ""),
        message,
    )


# ---- Messages ------------------------------------------------------------------------------------


def _counts(sweep: Sweep) -> str:
    """Describe in one line how many runs are done, missing, failed, diverged and to do."""
    state = sweep.state
    # Two rows may be the same run under two names, which is trained and counted once.
    keys = {spec.key for spec in sweep.specs}
    missing = len(keys - state.done - state.diverged - state.failed)
    return (
        f"{sweep.plan.name}: {len(keys)} run{'s' * (len(keys) != 1)}: {len(state.done)} done, "
        f"{missing} missing, {len(state.failed)} failed, {len(state.diverged)} diverged; "
        f"{len(state.todo)} to do"
    )


def _counts_of_shard(sweep: Sweep) -> list[str]:
    """Describe in one line what a shard has to do; in none without a shard."""
    if sweep.shard is None:
        return []
    todo = sum(spec.key in sweep.own for spec in sweep.state.todo)
    line = f"{sweep.shard}: {todo} of its {len(sweep.own)} runs to do"
    left = len(sweep.state.todo) - todo
    if left:
        line += f"; then those of {left} in other shards that nobody has begun"
    return [line]


def _what_is_left(sweep: Sweep, missing: int, out: Path) -> str:
    """Say at the end of a shard what the suite still lacks, and how to see and to get it."""
    count = len({spec.key for spec in sweep.specs})
    what = f"{missing} of {count} runs of {sweep.plan.name} have no record yet"
    if sweep.plan.tries:
        what += ", and the tries choose the settings of all other runs"
    how = "the same command trains them"
    # A tuned suite has more to do for this very command, once the tries of others are done.
    if sweep.shard is not None and not sweep.shard.leftovers and not sweep.plan.tries:
        how = "the commands of their shards train them, or this one without --no-leftovers"
    return (
        f"{sweep.shard} has ended; {what}. If no process is training them, {how}. "
        f"`nlbench table {out}` shows what is there"
    )


def _print_results(sweep: Sweep, rows: Sequence[str], conditions: Sequence[str], out: Path) -> None:
    """Print the table, and report runs that failed or diverged: with status 1 if there are any."""
    from nlbench.results import table as tables

    missing = sweep.missing() if sweep.shard is not None else 0
    if sweep.shard is not None and (missing or sweep.plan.tries):
        # A table with holes from each task would be in the way. The last task prints the whole one.
        warn(_what_is_left(sweep, missing, out))
    else:
        plan = sweep.plan.as_json()
        if conditions:
            plan = tables.narrowed(plan, conditions)
        text = tables.render(plan, sweep.store, methods=sweep.methods, only=rows, width=width())
        write(text)
    if sweep.failures():
        _report_failures(sweep, out)
        raise typer.Exit(1)
    if sweep.plan.tries:
        # All other runs of the suite are still to be trained.
        raise typer.Exit(LEFT)


def _end_of(budget: str | None) -> float:
    """Return when the time of --budget is over, on the monotonic clock."""
    from nlbench.plan.options import parse_budget

    return math.inf if budget is None else started() + parse_budget(budget)


def _train_stages(
    sweep: Sweep, prepare: Callable[[], Sweep], train: Callable[[Sweep], None]
) -> Sweep:
    """Train all stages, see `api.run_stages`. Exits with status 75 if the time ends before."""
    from nlbench import api

    try:
        return api.run_stages(sweep, prepare, train)
    except BudgetSpent as spent:
        # A job script that submits itself again would otherwise never end.
        if not spent.was_of_use:
            raise UserError(
                f"{spent}; no run has got as far as a checkpoint, so the same command would not "
                "get further: give --budget more time"
            ) from None
        warn(f"{spent}; everything finished is kept, and the same command continues from here")
        raise typer.Exit(LEFT) from None


def _report_failures(sweep: Sweep, out: Path) -> None:
    failures = sweep.failures()
    for record in failures:
        # Further lines were printed when the run ended.
        message = record.error_message.partition("\n")[0].removesuffix(":")
        run = f"{record.spec['method']} seed {record.spec['seed']} [{record.key}]"
        kept = sweep.store.read(record.key)
        older = "" if kept is None or kept.status == record.status else "; its older result is kept"
        warn(f"{record.status}: {run}: {message}{older}")
    warn(
        f"{len(failures)} of {len(sweep.specs)} runs failed or diverged; "
        f"`nlbench show KEY --out {out}` prints the whole record"
    )


# ---- Debugging -----------------------------------------------------------------------------------


def _debug(sweep: Sweep) -> None:
    import pdb

    if not sweep.state.todo:
        warn("every run is done, so there is nothing to debug; give another --out or --stale rerun")
        return

    try:
        sweep.run(debug=True)
    # These come from no mistake in a method, and `guarded` reports them.
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        warn(f"{type(error).__name__}: {error}")
        pdb.post_mortem(error.__traceback__)
        raise typer.Exit(1) from None

    record = sweep.store.read(sweep.state.todo[0].key)
    if record is None:
        raise RuntimeError("a run that ended without an error has no record")
    run = f"{record.spec['method']} seed {record.spec['seed']} [{record.key}]"
    warn(f"{run}: {record.status}")
    if record.status != "done":
        raise typer.Exit(1)
