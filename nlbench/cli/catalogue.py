"""Commands about names and data: `list`, `data status`, `data fetch` and `noise export`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nlbench.cli.app import (
    Commands,
    DataDir,
    MethodsDir,
    app,
    complete_datasets,
    examples,
    guarded,
    say,
    width,
    write,
)
from nlbench.errors import DataMissing, Problem, SuiteError

data_app = typer.Typer(
    cls=Commands,
    help="Where the datasets are, and how to get them.",
    epilog=examples("nlbench data status", "nlbench data fetch cifar10n"),
    no_args_is_help=True,
)
noise_app = typer.Typer(
    cls=Commands,
    help="Noisy labels for use in other programs.",
    epilog=examples(
        "nlbench noise export digits --kind symmetric --rate 0.4 --to labels.npy",
    ),
    no_args_is_help=True,
)
app.add_typer(data_app, name="data")
app.add_typer(noise_app, name="noise")


# ---- list ----------------------------------------------------------------------------------------


class Listed(StrEnum):
    methods = "methods"
    datasets = "datasets"
    models = "models"
    noises = "noises"
    protocols = "protocols"
    suites = "suites"


@app.command(
    "list",
    epilog=examples(
        "nlbench list methods",
        "nlbench list methods --methods-dir my_methods",
        "nlbench list suites",
    ),
)
@guarded
def list_names(
    what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)],
    methods_dir: MethodsDir = None,
) -> None:
    """List the names that a suite can use."""
    if methods_dir is not None and what is not Listed.methods:
        raise SuiteError(f"--methods-dir is for `nlbench list methods`; it has no {what.value}")
    lines = _described(what, methods_dir)
    facts = _facts(lines) if what is Listed.methods else {}
    longest = max(map(len, lines), default=0)
    for name, line in lines.items():
        if "\n" in line:
            # Several lines about a name stand below it, since long names would push them far out.
            say(f"{name}: {line}".replace("\n", "\n    "))
            continue
        text = f"{name:<{longest}}  {line}".rstrip()
        if sys.stdout.isatty():
            text = _below_itself(text, longest + 2)
        if name in facts:
            text += _apart(facts[name], longest + 2)
        write(f"{text}\n")


def _below_itself(text: str, start: int) -> str:
    """Wrap a line of a list so that its first `start` columns, the names, stay a column."""
    indent = " " * start
    return textwrap.fill(text, width(), subsequent_indent=indent, break_on_hyphens=False)


def _apart(facts: str, start: int) -> str:
    """Return what follows the line of a name: lines of their own in a terminal, else its rest."""
    if not sys.stdout.isatty():
        return f" {facts}"
    return "\n" + _below_itself(" " * start + facts, start)


def _described(what: Listed, methods_dir: Path | None) -> dict[str, str]:
    """Return each name of one sort with a line about it."""
    # Each list imports only what it needs, because none of them should wait for torch.
    from nlbench import registry

    if what is Listed.methods:
        files = registry.method_files([methods_dir] if methods_dir else [])
        return {name: registry.first_line(file.path) for name, file in files.items()}

    if what is Listed.datasets:
        from nlbench.data.catalogue import dataset_files

        return {name: _describe_dataset(name) for name in dataset_files()}

    if what is Listed.models:
        from nlbench import models

        packages = {
            "torchvision/NAME": "any classifier of torchvision",
            "timm/NAME": "any model of timm",
            "timm/NAME.TAG": "with the weights TAG, as timm.list_pretrained() names them",
            "hf-hub:OWNER/NAME": "a model of timm with its weights, from the Hugging Face hub",
            "local-dir:PATH": "a model of timm with its weights, in a folder",
        }
        return {**models.names(), **packages}

    if what is Listed.noises:
        from nlbench.cli.noises import described

        return described()

    if what is Listed.protocols:
        from nlbench.plan.presets import PRESETS

        return {name: preset.line for name, preset in PRESETS.items()}

    from nlbench.plan.suite_file import read_suite

    return {name: read_suite(path)[0].description for name, path in registry.suite_files().items()}


def _facts(names: Iterable[str]) -> dict[str, str]:
    """Return how far each shipped method is trusted, and what it takes."""
    from nlbench import trust

    trusts, costs = trust.trusts(), trust.costs()
    found = {}
    for name in names:
        if name in trusts and name in costs:
            parts = [trusts[name].words, *costs[name].in_words()]
            found[name] = f"[{'; '.join(parts)}]"
    return found


def _describe_dataset(name: str) -> str:
    from nlbench.data.catalogue import dataset

    info = dataset(name).INFO
    if info.located_by == "suite":
        return f"{info.title}, named by its path; labels: given, and clean where you know them"

    sizes = "the images are counted when they are read"
    if info.num_train:
        sizes = f"{info.num_train:,} training, {info.num_test:,} test examples"
    labels = ", ".join(info.label_sets)
    return f"{info.title}: {info.num_classes} classes, {sizes}; labels: {labels}"


# ---- data ----------------------------------------------------------------------------------------


@data_app.command(
    "status",
    epilog=examples("nlbench data status", "nlbench data status cifar10 --data-dir /data"),
)
@guarded
def data_status(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A dataset. The default is all of them.", autocompletion=complete_datasets
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Report which datasets are there.

    Say where nlbench looked for each, and which file goes where.
    """
    from nlbench.data import catalogue
    from nlbench.data.places import Places
    from nlbench.errors import look_up

    known = catalogue.dataset_files()
    if name is not None:
        look_up("dataset", name, known)
    places = Places.of_user(data_dir)
    say(f"data directory: {places.data_dir}\ncache:          {places.cache_dir}\n")
    names = list(known) if name is None else [name]
    for each in names:
        say(catalogue.advice(each, places.data_dir), "")


@data_app.command(
    "check",
    epilog=examples(
        "nlbench data check my_images",
        "nlbench data check table.csv --label species",
        "nlbench data check reviews.csv --text review --label rating",
    ),
)
@guarded
def data_check(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder of your own images, a table, or hf:OWNER/NAME[@REVISION]."),
    ],
    label: Annotated[str, typer.Option(help="The column of a table's given labels.")] = "",
    clean_label: Annotated[str, typer.Option(help="The column of a table's true labels.")] = "",
    text: Annotated[str, typer.Option(help="The column of the texts, in a table of texts.")] = "",
) -> None:
    """Check a folder or table of your own before anything is trained.

    Decode every picture, and report what is broken, left out or there twice, and the images of each
    class. Of a table, report its features and classes; of a table of texts, its words and classes.
    With other keys of a dataset entry than these options, `nlbench run SUITE --dry-run` reads it.

    Exit status: 0 the folder can be used; 1 it cannot, or a picture is broken.
    """
    from nlbench.cli.check_folder import check_folder
    from nlbench.cli.check_table import check_table, check_texts, is_table
    from nlbench.data import hub
    from nlbench.data.places import FolderOptions, Places
    from nlbench.executors.progress import count_bar

    if text and hub.named(str(folder)) is not None:
        raise SuiteError(
            "--text names a column of a file; a dataset of the hub needs no such option"
        )
    options = FolderOptions(label_column=label, clean_column=clean_label, text=text)
    # JSON lines are read as texts alone.
    if text or folder.suffix.lower() == ".jsonl":
        report = check_texts(folder, Places.of_user(), options)
    elif is_table(folder):
        report = check_table(folder, Places.of_user(), options)
    elif label or clean_label:
        raise SuiteError("--label and --clean-label name the columns of a table; leave them out")
    else:
        with count_bar("decoding pictures") as start:
            report = check_folder(folder, Places.of_user(), start)
    say(*report.lines)
    if report.unfit:
        raise typer.Exit(1)


@data_app.command(
    "fetch",
    epilog=examples(
        "nlbench data fetch cifar10n",
        "nlbench data fetch cifar10 --data-dir /data",
        "nlbench data fetch elr-table1-cifar10",
        "nlbench data fetch my.yaml",
        "nlbench data fetch hf:uoft-cs/cifar10",
    ),
)
@guarded
def data_fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="A dataset of `nlbench list datasets`, hf:OWNER/NAME[@REVISION], or a suite: its "
            "name or its file.",
            autocompletion=complete_datasets,
        ),
    ],
    data_dir: DataDir = None,
) -> None:
    """Download a dataset, or all those of a suite, into the data directory.

    A partial download is continued, and checksums are verified. Of a dataset that its owners hand
    out themselves it says where, and which file goes where. `nlbench run SUITE --prepare` also
    fetches published weights.
    """
    from nlbench import registry
    from nlbench.cli.prepare import datasets_of, entries_on_hub, fetch_datasets, fetch_from_hub
    from nlbench.data import catalogue, hub
    from nlbench.data.places import HUB, Places
    from nlbench.errors import look_up

    one = hub.named(name)
    if one is not None:
        from nlbench.plan.suite_file import DatasetEntry

        repository, revision = one
        entry = DatasetEntry(name=HUB, path=repository, revision=revision)
        say(*fetch_from_hub([entry], Places.of_user(data_dir)))
        return
    datasets = catalogue.dataset_files()
    names = [name]
    # A suite may have the name of its dataset.
    if name not in datasets:
        if name not in registry.suite_files() and not Path(name).exists():
            look_up("dataset or suite", name, {**datasets, **registry.suite_files()})
        names = datasets_of(name)
        say(*fetch_from_hub(entries_on_hub(name), Places.of_user(data_dir)))
    folder = Places.of_user(data_dir).data_dir
    fetch_datasets(names, folder)
    say(*(catalogue.advice(each, folder) for each in names))


# ---- noise export --------------------------------------------------------------------------------


@noise_app.command(
    "export",
    epilog=examples(
        "nlbench noise export digits --kind symmetric --rate 0.4 --to labels.npy",
        "nlbench noise export cifar10 --kind asymmetric --rate 0.3 --to labels.csv",
    ),
)
@guarded
def noise_export(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A dataset of `nlbench list datasets`.", autocompletion=complete_datasets
        ),
    ],
    kind: Annotated[str, typer.Option(help="A kind of noise, for example symmetric.")],
    to: Annotated[
        Path, typer.Option("--to", help="The file to write: .npy, .csv, .json (a list) or .pt")
    ],
    rate: Annotated[float | None, typer.Option(help="The noise rate to ask for.")] = None,
    path: Annotated[
        Path | None, typer.Option(help="The file that the kinds `matrix` and `file` read.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The column or entry to read, for the kind `file`."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of the kind that has no option of its own; repeat it for others. "
            "`nlbench list noises` names them.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The run's seed.")] = 0,
    data_dir: DataDir = None,
) -> None:
    """Write the labels that a run with this seed trains on.

    The file holds all N labels in the dataset's order. DATASET may be one with unequal classes, as
    cifar10@exp-0.01. A file of the labels of all its examples gives those of the kept ones.
    """
    from nlbench.cli.noises import parameters
    from nlbench.data import catalogue, imbalance
    from nlbench.data.base import ImageFiles
    from nlbench.data.noise import label_files, measure, resolve
    from nlbench.data.noise.examples import Examples
    from nlbench.data.noise.kinds import KINDS
    from nlbench.data.places import Places
    from nlbench.errors import look_up

    plain, unequal = imbalance.parse(dataset)
    look_up("dataset", plain, catalogue.dataset_files())
    info = catalogue.dataset(dataset).INFO
    places = Places.of_user(data_dir)
    if info.located_by == "suite":
        raise SuiteError(
            f"{dataset}: its place is named by a suite; "
            "only the noise of datasets in the data directory can be written"
        )
    if "clean" not in info.label_sets:
        raise SuiteError(f"{dataset}: its true labels are unknown, so that no noise can be drawn")

    options = {"kind": kind, "rate": rate, "path": None if path is None else str(path), "key": key}
    # A parameter that is left out has the default of its kind.
    given = parameters(options, settings or [])
    try:
        # A path on the command line counts from the working directory.
        resolved = resolve.resolve(given, info, Path())
    except SuiteError as error:
        # The keys of a noise are options of this command.
        problems = []
        for found in error.problems:
            name = str(found.path[-1])
            option = f"--{name}" if name in options else f"--set {name}"
            problems.append(Problem((), found.message, option))
        raise SuiteError(problems=problems) from None
    if not catalogue.status(plain, places.data_dir).there:
        raise DataMissing(catalogue.advice(plain, places.data_dir))

    # A file has a row for each example. Other noise is drawn on those that an imbalance keeps.
    of_all = unequal is not None and KINDS[kind].needs_examples
    # With the seed, because a redrawn dataset depends on it as well.
    data = catalogue.open_dataset(plain if of_all else dataset, "", places, seed)
    clean = data.clean_labels
    if clean is None:
        raise RuntimeError(f"{dataset} has a label set `clean`, and no clean labels")
    resolve.require_fit(resolved, Examples.of(data))
    images = data.train_images
    # `resolve` has refused the kinds that need pixels for datasets of image files.
    pixels = None if isinstance(images, ImageFiles) else images
    labels = resolve.apply(resolved, clean, data.info, seed, pixels)
    if of_all and unequal is not None:
        kept = imbalance.subset(
            replace(data, label_sets={"clean": clean, "given": labels}), unequal
        )
        clean, labels = kept.label_sets["clean"], kept.label_sets["given"]
    try:
        label_files.write_labels(to, labels)
    except ValueError as error:
        raise SuiteError(f"--to {error}") from None

    rate_found = measure.noise_rate(clean, labels)
    digest = label_files.labels_hash(labels)
    say(f"{to}: {len(labels)} labels, {100 * rate_found:.3f}% wrong, hash {digest}")
