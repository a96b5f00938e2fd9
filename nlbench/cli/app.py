"""The command line, thin: parse, call, print. Tables go to standard output, everything else to standard error."""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from nlbench.errors import DataMissing, SuiteError, UserError

app = typer.Typer(
    help="Benchmark methods for learning with noisy labels under one identical protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Where the datasets are and how to get them.", no_args_is_help=True)
noise_app = typer.Typer(help="Noisy labels for other people's code.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(noise_app, name="noise")

Out = Annotated[Path, typer.Option("--out", help="The record store.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the datasets are; else $NLBENCH_DATA, else a user folder.")
]
MethodsDir = Annotated[
    Path | None, typer.Option("--methods-dir", help="A folder of further method files; also $NLBENCH_METHODS.")
]


class Listed(StrEnum):
    methods = "methods"
    datasets = "datasets"
    models = "models"
    protocols = "protocols"
    suites = "suites"


class Stale(StrEnum):
    keep = "keep"
    rerun = "rerun"


class Format(StrEnum):
    md = "md"
    csv = "csv"
    latex = "latex"


class PlainFormat(StrEnum):
    md = "md"
    csv = "csv"


def say(*lines: str) -> None:
    """A message to standard error."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """What a user can cause ends in a message and a status, never in a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            try:
                command(*args, **kwargs)
            finally:
                sys.stdout.flush()  # here, where a reader that has gone can still be told from an error
        except UserError as error:
            say(*(f"error: {line}" if i == 0 else f"  {line}" for i, line in enumerate(str(error).splitlines())))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            say("interrupted; everything finished is kept, the same command goes on from here")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of a pipe has gone
            raise typer.Exit(141) from None  # as a shell reports SIGPIPE
        except OSError as error:  # a full disk, a folder without permission
            where = f"{error.filename}: " if error.filename else ""
            say(f"error: {where}{error.strerror or error}")
            raise typer.Exit(2) from None

    return wrapped


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"nlbench {installed('nlbench')}")
        raise typer.Exit()


@app.command()
@guarded
def run(
    suite: Annotated[str, typer.Argument(help="A suite file, or the bare name of one that comes with nlbench.")],
    out: Out = Path("results"),
    only: Annotated[str | None, typer.Option(help="Train these rows only: ce,elr")] = None,
    seeds: Annotated[str | None, typer.Option(help="Train these seeds only: 0,1 or 0-4")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a protocol value: epochs=2; repeatable.")
    ] = None,
    data_dir: DataDir = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")] = "auto",
    gpus: Annotated[str | None, typer.Option(help="Spread the runs over these GPUs: 0,2")] = None,
    jobs: Annotated[
        str, typer.Option(help="Runs at once on each device, or auto: on a CPU as many as it has cores for.")
    ] = "1",
    cuda_graphs: Annotated[
        bool | None,
        typer.Option(
            "--cuda-graphs/--no-cuda-graphs",
            help="On a GPU, replay default training steps as CUDA graphs: the same results, sooner. On for nlbench's "
            "own models, off for others, unless you say so.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many runs are done, missing and failed.")] = False,
    methods_dir: MethodsDir = None,
    stale: Annotated[Stale, typer.Option(help="Records made by code that has changed since.")] = Stale.keep,
    debug: Annotated[bool, typer.Option("--debug", help="One run only; pdb opens where it fails.")] = False,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints within a run.")] = 10.0,
) -> None:
    """Train what a suite still lacks, then print its table.

    Exit status: 0 all done; 1 some run failed or diverged; 2 the suite or its data is wrong and nothing ran;
    130 interrupted, with everything finished kept.
    """
    from nlbench import api
    from nlbench.executors import base
    from nlbench.plan.options import parse_seeds, parse_set
    from nlbench.results import table as tables

    rows = None if only is None else [row.strip() for row in only.split(",")]
    if rows is not None and not all(rows):
        raise SuiteError(f"--only {only!r}: write rows as ce,elr")
    at_once = _jobs(jobs)
    prepare = functools.partial(
        api.prepare,
        suite,
        out=out,
        only=rows,
        seeds=None if seeds is None else parse_seeds(seeds),
        overrides=parse_set(set_ or []),
        data_dir=data_dir,
        device=_devices(device, gpus),
        methods_dir=methods_dir,
        stale=stale.value,
        warn=say,
    )
    try:
        sweep = prepare()
    except DataMissing as error:
        raise DataMissing(f"the suite's data is not there; nothing was trained\n{error}") from None
    state = sweep.state
    if state.stale and stale is Stale.keep:
        say(f"made by code that has changed since: {len(state.stale)} of the records; --stale rerun redoes them")
    if dry_run:
        keys = {spec.key for spec in sweep.specs}
        missing = len(keys - state.done - state.diverged - state.failed)
        print(
            f"{sweep.plan.name}: {len(keys)} run{'s' * (len(keys) != 1)}: {len(state.done)} done, {missing} missing, "
            f"{len(state.failed)} failed, {len(state.diverged)} diverged; {len(state.todo)} to do"
        )
        return
    base.pick_devices(sweep.device)
    if debug:
        _debug(sweep)
        return
    from nlbench.cli.progress import Progress

    while True:
        with Progress(len(sweep.state.todo)) as progress:
            sweep.run(progress.listener(), checkpoint_seconds=checkpoint_seconds, jobs=at_once, cuda_graphs=cuda_graphs)
        if not sweep.plan.tries or any(record.status == "failed" for record in sweep.failures()):
            break
        sweep = prepare()  # the tries of a tuned suite are done: now the runs they chose
    print(tables.render(sweep.plan.as_json(), sweep.store, methods=sweep.methods), end="")
    if failures := sweep.failures():
        for record in failures:
            message = (record.error or {}).get("message", "").partition("\n")[0]
            say(f"{record.status}: {record.spec['method']} seed {record.spec['seed']} [{record.key}]: {message}")
        say(f"did not end well: {len(failures)} of {len(sweep.specs)}; `nlbench show KEY --out {out}` prints one whole")
        raise typer.Exit(1)


def _devices(device: str, gpus: str | None) -> str:
    if gpus is None:
        return device
    if device != "auto":
        raise SuiteError(f"--gpus {gpus} and --device {device} exclude each other; give one of them")
    if not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise SuiteError(f"--gpus {gpus!r}: write the numbers of GPUs as 0,2")
    return ",".join(f"cuda:{number}" for number in gpus.split(","))


def _jobs(text: str) -> Any:
    if text != "auto" and not (text.isdecimal() and int(text)):
        raise SuiteError(f"--jobs {text!r}: must be auto or a number from 1 on")
    return text if text == "auto" else int(text)


def _debug(sweep: Any) -> None:
    import pdb

    if not sweep.state.todo:
        say("nothing is to do, so there is nothing to debug; choose another --out or --stale rerun")
        return
    try:
        sweep.run(debug=True)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        say(f"{type(error).__name__}: {error}")
        pdb.post_mortem(error.__traceback__)
        raise typer.Exit(1) from None
    record = sweep.store.read(sweep.state.todo[0].key)
    say(f"{record.spec['method']} seed {record.spec['seed']} [{record.key}]: {record.status}")
    if record.status != "done":
        raise typer.Exit(1)


@app.command()
@guarded
def table(
    out: Annotated[Path, typer.Argument(help="The record store.")] = Path("results"),
    suite: Annotated[str | None, typer.Option(help="One of the store's suites; all of them without it.")] = None,
    format_: Annotated[Format, typer.Option("--format")] = Format.md,
    metric: Annotated[str | None, typer.Option(help="last, last10, best, selected, top5, memorised, ...")] = None,
    against: Annotated[str | None, typer.Option(help="The row that paired differences are taken to.")] = None,
    details: Annotated[bool, typer.Option("--details", help="Every metric, a table per dataset and noise.")] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Published numbers beside the measured ones, a table per noise.")
    ] = False,
    methods_dir: MethodsDir = None,
) -> None:
    """Print the table of a suite's records again."""
    from nlbench import registry
    from nlbench.errors import look_up
    from nlbench.results import table as tables
    from nlbench.results.store import Store

    store = Store(out, say)
    plans = store.plans()
    if suite is not None:
        plans = {suite: look_up("suite of this store", suite, plans)}
    else:  # a tuned suite's tries only when they are asked for
        plans = {name: plan for name, plan in plans.items() if not plan["tries"]} or plans
    methods = registry.method_files([methods_dir] if methods_dir else [])
    blocks = [
        tables.render(
            plan,
            store,
            fmt=format_.value,
            metric=metric,
            against=against,
            details=details,
            published=published,
            methods=methods,
        )
        for plan in plans.values()
    ]
    if format_ is Format.csv:  # one header for all
        blocks = [block if i == 0 else block.partition("\n")[2] for i, block in enumerate(blocks)]
    print(("" if format_ is Format.csv else "\n").join(blocks), end="")


@app.command()
@guarded
def agreement(
    a: Annotated[str, typer.Argument(metavar="A", help="A suite of the store.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one; or `published`: each source by itself.")],
    out: Out = Path("results"),
    out_b: Annotated[Path | None, typer.Option(help="The store of B, where it is another one.")] = None,
    metric: Annotated[str, typer.Option(help="last, last10, best, selected, memorised, ...")] = "last",
    condition: Annotated[
        list[str] | None,
        typer.Option(help='As tables print it: "CIFAR-10N worst"; twice: of A and of B. All they share without it.'),
    ] = None,
    methods_dir: MethodsDir = None,
) -> None:
    """Say how far two suites agree on the order of their common methods (Kendall's tau-b)."""
    from nlbench import registry
    from nlbench.errors import look_up
    from nlbench.results import agreement as agreements
    from nlbench.results import cells
    from nlbench.results.store import Store

    methods = registry.method_files([methods_dir] if methods_dir else [])

    def results(folder: Path, suite: str) -> cells.Results:
        store = Store(folder, say)
        return cells.Results(look_up(f"suite of {folder}", suite, store.plans()), store, methods)

    first, conditions = results(out, a), condition or ()
    if b == "published":
        report = agreements.with_published(first, metric=metric, conditions=conditions)
    else:
        report = agreements.between(first, results(out_b or out, b), metric=metric, conditions=conditions)
    print(report, end="")


@app.command("published")
@guarded
def published_(
    dataset: Annotated[str | None, typer.Option(help="cifar10, cifar10n, clothing1m, ...")] = None,
    method: Annotated[str | None, typer.Option(help="elr, dividemix, ...")] = None,
    noise: Annotated[str | None, typer.Option(help="sym, sym-0.4, asym, worst, symmetric-inclusive, ...")] = None,
    model: Annotated[str | None, typer.Option(help="resnet34, preact_resnet18, ...")] = None,
    format_: Annotated[PlainFormat, typer.Option("--format")] = PlainFormat.md,
) -> None:
    """Print published numbers with their sources; no run is needed."""
    from nlbench.results import table as tables
    from nlbench.results.published import records

    found = records.select(dataset=dataset, method=method, noise=noise, model=model)
    print(tables.listing(found, format_.value), end="")


@app.command("list")
@guarded
def list_(
    what: Annotated[Listed, typer.Argument()],
    methods_dir: MethodsDir = None,
) -> None:
    """List what a suite can name."""
    from nlbench import registry

    if what is Listed.methods:
        files = registry.method_files([methods_dir] if methods_dir else [])
        rows = {name: registry.first_line(file.path) for name, file in files.items()}
    elif what is Listed.datasets:
        from nlbench.data import catalogue

        rows = {}
        for name in catalogue.dataset_files():
            info = catalogue.dataset(name).INFO
            if info.located_by == "suite":
                rows[name] = f"{info.title}, named by its path; labels: given, and clean where you know them"
                continue
            sizes = "the images are counted when they are read"
            if info.num_train:
                sizes = f"{info.num_train:,} training, {info.num_test:,} test examples"
            rows[name] = f"{info.title}: {info.num_classes} classes, {sizes}; labels: {', '.join(info.label_sets)}"
    elif what is Listed.models:
        from nlbench import models

        rows = {**models.names(), "torchvision/NAME": "any classifier of torchvision", "timm/NAME": "any model of timm"}
    elif what is Listed.protocols:
        from nlbench.plan.presets import PRESETS

        rows = {name: f"v{values['version']}: {line}" for name, (line, values, _) in PRESETS.items()}
    else:
        from nlbench.plan.suite_file import read_suite

        rows = {name: read_suite(path)[0].description for name, path in registry.suite_files().items()}
    width = max(map(len, rows), default=0)
    for name, line in rows.items():
        print(f"{name:<{width}}  {line}".rstrip())


@app.command()
@guarded
def show(
    key: Annotated[str, typer.Argument(help="A run's key, or its beginning.")],
    out: Out = Path("results"),
) -> None:
    """Print one run's record whole."""
    import json

    from nlbench.errors import StoreError
    from nlbench.results.store import Store

    store = Store(out, say)
    keys = [k for k in store.run_keys() if k.startswith(key)]
    if len(keys) != 1:
        found = f"begins {len(keys)} runs" if keys else "begins no run"
        there = keys or store.run_keys()
        listed = "\n".join(map(_in_a_line, filter(None, map(store.read, there[:_LISTED]))))
        more = f"\nand {len(there) - _LISTED} more" if len(there) > _LISTED else ""
        raise StoreError(f"key {key!r} {found} in {out}" + (f"; there are:\n{listed}{more}" if there else ""))
    record = store.read(keys[0])
    if record is None:
        raise StoreError(f"{keys[0]}: its record could not be read; run its suite again")
    values = record.as_json()
    trace = (values["error"] or {}).pop("traceback", "")
    print(json.dumps(values, indent=2))
    if trace:
        print(trace, end="")


_LISTED = 20


def _in_a_line(record: Any) -> str:
    spec = record.spec
    labels = f"{spec['noise']['kind']} {spec['noise'].get('rate', '')}".strip() if spec["noise"] else spec["labels"]
    return f"{record.key}  {spec['method']} · {spec['dataset']} {labels} · seed {spec['seed']} · {record.status}"


@data_app.command("status")
@guarded
def data_status(
    name: Annotated[str | None, typer.Argument(help="One dataset; all of them without it.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Say for each dataset whether it is there, where it was looked for, and which file goes where."""
    from nlbench.data import catalogue
    from nlbench.data.places import Places
    from nlbench.errors import look_up

    known = catalogue.dataset_files()
    if name is not None:
        look_up("dataset", name, known)
    places = Places.of_user(data_dir)
    print(f"data directory: {places.data_dir}\ncache:          {places.cache_dir}\n")
    for each in known if name is None else [name]:
        print(catalogue.advice(each, places.data_dir), end="\n\n")


@data_app.command("fetch")
@guarded
def data_fetch(
    name: Annotated[str, typer.Argument(help="A dataset of `nlbench list datasets`.")],
    data_dir: DataDir = None,
) -> None:
    """Download a dataset into the data directory; resumes, and verifies checksums."""
    from nlbench.cli.progress import download_bar
    from nlbench.data import catalogue
    from nlbench.data.fetch import fetch
    from nlbench.data.places import Places
    from nlbench.errors import look_up

    look_up("dataset", name, catalogue.dataset_files())
    folder = Places.of_user(data_dir).data_dir
    with download_bar(name) as update:
        fetch(name, folder, update)
    print(catalogue.advice(name, folder))


@noise_app.command("export")
@guarded
def noise_export(
    dataset: Annotated[str, typer.Argument(help="A dataset of `nlbench list datasets`.")],
    kind: Annotated[str, typer.Option(help="A kind of noise, for example symmetric.")],
    to: Annotated[Path, typer.Option("--to", help="The file to write: .npy, .csv, .json (a list) or .pt")],
    rate: Annotated[float | None, typer.Option(help="The asked noise rate.")] = None,
    path: Annotated[Path | None, typer.Option(help="The file of the kinds `matrix` and `file`.")] = None,
    key: Annotated[str | None, typer.Option(help="The entry of a .pt that holds several, of the kind `file`.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The run's seed.")] = 0,
    data_dir: DataDir = None,
) -> None:
    """Write the labels that a run with this seed trains on, all N of them, in the dataset's order."""
    from nlbench.data import catalogue
    from nlbench.data.base import ImageFiles
    from nlbench.data.noise import label_files, measure, resolve
    from nlbench.data.places import Places
    from nlbench.errors import look_up

    look_up("dataset", dataset, catalogue.dataset_files())
    info = catalogue.dataset(dataset).INFO
    places = Places.of_user(data_dir)
    if info.located_by == "suite":
        raise SuiteError(f"{dataset}: lies where a suite says; only noise of datasets in the data directory is written")
    if "clean" not in info.label_sets:
        raise SuiteError(f"{dataset}: its true labels are unknown, so that no noise can be drawn")
    options = {"kind": kind, "rate": rate, "path": None if path is None else str(path), "key": key}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        resolved = resolve.resolve(given, info, Path())
    except ValueError as error:
        raise SuiteError(re.sub(r"^noise\.", "--", str(error), flags=re.MULTILINE)) from None
    if not catalogue.status(dataset, places.data_dir).there:
        raise DataMissing(catalogue.advice(dataset, places.data_dir))
    data = catalogue.open_dataset(dataset, "", places, seed)
    clean = data.clean_labels
    images = None if isinstance(data.train_images, ImageFiles) else data.train_images
    assert clean is not None  # as INFO says
    labels = resolve.apply(resolved, clean, data.info, seed, images)
    try:
        label_files.write_labels(to, labels)
    except ValueError as error:
        raise SuiteError(f"--to {error}") from None
    print(
        f"{to}: {len(labels)} labels, {100 * measure.noise_rate(clean, labels):.3f}% wrong, "
        f"hash {label_files.labels_hash(labels)}"
    )


@app.command()
@guarded
def doctor(data_dir: DataDir = None, methods_dir: MethodsDir = None) -> None:
    """Say what is installed, which kernels are in, where the data is, and whether every method can be imported."""
    from nlbench.cli import doctor as diagnosis

    lines, healthy = diagnosis.report(data_dir, methods_dir)
    print("\n".join(lines))
    if not healthy:
        raise typer.Exit(1)


@app.command()
@guarded
def bench(
    op: Annotated[str, typer.Option(help="The op to time: elr")] = "elr",
    shapes: Annotated[str, typer.Option(help="Rows x classes: 128x10,1024x1000; six usual ones without it.")] = "",
    dtypes: Annotated[str, typer.Option(help="Of the logits; also float16.")] = "float32,bfloat16",
    seconds: Annotated[float, typer.Option(help="Seconds of timing per variant, shape and dtype.")] = 1.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; torch's own choice without it.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1")] = "cpu",
    compile_: Annotated[bool, typer.Option("--compile/--no-compile", help="Also time torch.compile.")] = True,
    csv: Annotated[Path | None, typer.Option(help="Write a row per measurement to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a figure into this .png, .pdf or .svg file.")] = None,
) -> None:
    """Time the fused kernels against eager PyTorch and torch.compile on this machine."""
    import torch

    from nlbench.bench import measure as benchmark
    from nlbench.bench import plot as plot_
    from nlbench.bench import report as report_
    from nlbench.bench import setting as setting_
    from nlbench.bench import variants

    setting = setting_.Setting.read(op, shapes, dtypes, seconds, threads, device, compile_)
    if csv:
        setting_.check_writable("--csv", csv)
    if plot:
        setting_.check_writable("--plot", plot, variants.PICTURES)
    if threads:
        torch.set_num_threads(threads)
    measurements = []
    interrupted = False
    try:
        for cell in benchmark.run(setting):
            say(f"{cell[0].shape} {cell[0].dtype}: timed")
            measurements += cell
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted; what was timed before follows")
    if measurements:
        print(report_.render(setting, measurements), end="")
    if csv and measurements:
        report_.write_csv(csv, setting, measurements)
    if plot and measurements:
        plot_.plot(plot, setting, measurements)
    if interrupted:
        raise typer.Exit(130)
    if any(m.why.startswith("wrong") for m in measurements):
        raise typer.Exit(1)


@app.command()
@guarded
def check(
    method: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A method's name, or its file, anywhere.")],
    methods_dir: MethodsDir = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A hyperparameter: q=0.5; repeatable. The rest keep defaults.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Run this check and those it depends on; repeatable."),
    ] = None,
) -> None:
    """Try a method in the real harness on made-up data: what holds, what does not, where, and the likely fix.

    Exit status: 0 all checks are ok; 1 some failed; 2 there is no such method, file or hyperparameter.
    """
    from nlbench.conformance import runner as conformance
    from nlbench.plan.options import parse_set

    count = {"ok": 0, "FAIL": 0, "skipped": 0}
    params = parse_set(set_ or [])
    for result in conformance.results(method, params=params, methods_dir=methods_dir, only=only or ()):
        print(*result.lines(), sep="\n", flush=True)
        count[result.status] += 1
    rest = f", {count['skipped']} skipped" if count["skipped"] else ""
    print(f"{method}: {count['ok']} ok, {count['FAIL']} failed{rest}")
    if count["FAIL"]:
        raise typer.Exit(1)


@app.command("new-method")
@guarded
def new_method(
    name: Annotated[str, typer.Argument(help="Its name in suites and tables, for example my-loss.")],
    dir_: Annotated[Path, typer.Option("--dir", help="The folder it goes to.")] = Path("my_methods"),
) -> None:
    """Write a commented method file to start from; it passes `nlbench check` as it is."""
    from nlbench.conformance import template

    path = template.write(name, dir_)
    print(
        f"wrote {path}; next:\n"
        f"  nlbench check {path}\n"
        f"  nlbench run my.yaml --methods-dir {dir_}    # my.yaml: a suite with the row `{path.stem.replace('_', '-')}`"
    )


def main() -> NoReturn:
    """Entry point of the command `nlbench`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "±" gets "?", not a traceback
    app()
    raise SystemExit(0)
