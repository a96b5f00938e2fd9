"""The command `embed`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlbench.cli.app import DataDir, app, complete_datasets, examples, guarded, say, warn

if TYPE_CHECKING:
    from nlbench.embedding.embed import Written

# A text or path that YAML reads as it is, and the words that some version of YAML reads otherwise.
_PLAIN = re.compile(r"(?:(?:\.{0,2}|~)/)?[A-Za-z_][\w./-]*", re.ASCII)
_NO_TEXTS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}

# With so many training images the preset `features` is for them, and with fewer `tabular`.
_MANY = 10_000

DatasetName = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="An image dataset, such as cifar10n, or a folder of pictures.",
        autocompletion=complete_datasets,
        show_default=False,
    ),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        help="patches (k-means filters that are learned from the training images; needs no weights "
        "and no network), timm/NAME, torchvision/NAME, hf-hub:OWNER/NAME or local-dir:PATH.",
    ),
]
To = Annotated[
    Path, typer.Option(metavar="FILE", help="The .npz file to write.", show_default=False)
]
Weights = Annotated[
    str,
    typer.Option(
        metavar="imagenet|none|FILE",
        help="The weights of a model of timm or torchvision: those that the package publishes (the "
        "default), none, or a file.",
        show_default=False,
    ),
]
Dims = Annotated[
    int,
    typer.Option(
        min=1,
        help="Of `patches`: so many principal components are kept, and at most a fifth of the "
        "number of training images.",
    ),
]
FilterCount = Annotated[int, typer.Option("--filters", min=2, help="Of `patches`: its filters.")]
Size = Annotated[
    int,
    typer.Option(
        min=0,
        help="Of `patches`: the side in pixels that images are resized to. The default is 32 for "
        "pictures in files, and the own size for others.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of `patches`: chooses what its filters see first.")]
Device = Annotated[str, typer.Option(help="Of published models: auto, cpu, cuda or cuda:1")]
Share = Annotated[
    float,
    typer.Option(
        "--test-share",
        min=0,
        max=0.9,
        help="Of a folder without a test part, take this share of its pictures to test on.",
        show_default=False,
    ),
]


@app.command(
    epilog=examples(
        "nlbench embed cifar10n --model patches --to cifar10n.npz",
        "nlbench embed my_images --test-share 0.2 --to my_images.npz",
        "nlbench embed cifar10n --model timm/resnet50.a1_in1k --to resnet50.npz",
        "nlbench embed my_images --model local-dir:my_model --to mine.npz",
    )
)
@guarded
def embed(
    dataset: DatasetName,
    to: To,
    model: ModelName = "patches",
    weights: Weights = "",
    dims: Dims = 512,
    filters: FilterCount = 800,
    size: Size = 0,
    seed: Seed = 0,
    test_share: Share = 0.0,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """Write frozen features of images, on which every method trains in seconds.

    The same command continues after an interruption. At the end it prints the entry of a suite that
    trains on the features.
    """
    from nlbench.embedding.embed import check_file

    # Before anything is imported or read that takes long.
    check_file(to)

    from nlbench.data.places import Places
    from nlbench.embedding.embed import embed as write_features
    from nlbench.embedding.extractors import extractor
    from nlbench.embedding.patches import Settings
    from nlbench.embedding.pictures import Asked
    from nlbench.executors.progress import count_bar

    settings = Settings(filters=filters, dims=dims, size=size, seed=seed)
    asked = Asked.of(dataset)
    chosen = extractor(model, weights, settings, device)
    data = asked.open(Places.of_user(data_dir), test_share)
    warn(*(f"warning: {line}" for line in data.warnings))
    with count_bar("images") as start:
        written = write_features(data, chosen, to, start)
    say(*_lines(written))


def _lines(written: Written) -> list[str]:
    """Return what was written, and the entry of a suite that reads it."""
    record = written.record
    return [
        f"{written.to}: {written.train:,} training and {written.test:,} test images, "
        f"{record['dims']} features each, by {record['model']} in {record['seconds']:,.0f} s",
        "a suite reads it with",
        f"protocol: {'features' if written.train >= _MANY else 'tabular'}",
        f"datasets: [{_as_yaml(written.entry)}]",
    ]


def _as_yaml(value: object) -> str:
    """Return a mapping or text as YAML on one line."""
    if isinstance(value, dict):
        parts = [f"{_as_yaml(key)}: {_as_yaml(part)}" for key, part in value.items()]
        return f"{{{', '.join(parts)}}}"
    text = str(value)
    plain = _PLAIN.fullmatch(text) and text.lower() not in _NO_TEXTS
    # JSON's form is YAML's as well, but for the pairs of numbers by which it writes an emoji.
    return text if plain else json.dumps(text, ensure_ascii=False)
