"""Get everything that a suite's runs need, and train nothing: `nlbench run SUITE --prepare`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench.cli.app import say, warn
from nlbench.errors import DataMissing

if TYPE_CHECKING:
    from nlbench.api import Sweep
    from nlbench.data.places import Places
    from nlbench.plan.suite_file import DatasetEntry


def prepare_suite(suite: str | Path, prepare: Callable[[], Sweep], data_dir: Path | None) -> None:
    """Check a suite, fetch its data and published weights, decode the cache, and say where it is.

    Args:
        prepare: prepares the suite for another machine: nothing is asked of this one's devices.
    Raises: as `api.prepare`; DataMissing for data that cannot be downloaded.
    """
    from nlbench.data.places import Places

    try:
        sweep = prepare()
    except DataMissing:
        # Only of a suite without mistakes is the data looked for.
        fetch_datasets(datasets_of(suite), Places.of_user(data_dir).data_dir)
        sweep = prepare()

    lines, warnings = sweep.about_data()
    weights = _fetched_weights(sweep)
    runs = len({spec.key for spec in sweep.specs})
    tries = ", which are the tries; other runs follow them" if sweep.plan.tries else ""
    say(f"{sweep.plan.name}: checked; {runs} run{'s' * (runs != 1)}{tries}", *lines)
    warn(*(f"warning: {line}" for line in warnings))
    say("", *_places(sweep, weights), "", *_for_nodes(sweep, weights))


def datasets_of(suite: str | Path) -> list[str]:
    """Return the datasets of a suite that lie in the data directory. Raises SuiteError."""
    from nlbench.data import catalogue
    from nlbench.plan.suite_file import read_suite

    checked, problems = read_suite(suite)
    problems.raise_if_any()
    # A folder of the user's own is where the suite says.
    names = dict.fromkeys(entry.name for entry in checked.datasets if not entry.path)
    for name in names:
        catalogue.dataset(name)
    return list(names)


def entries_on_hub(suite: str | Path) -> list[DatasetEntry]:
    """Return the entries of a suite for datasets of the Hugging Face hub. Raises SuiteError."""
    from nlbench.plan.suite_file import read_suite

    checked, problems = read_suite(suite)
    problems.raise_if_any()
    return [entry for entry in checked.datasets if entry.on_hub and entry.path]


def fetch_from_hub(entries: Sequence[DatasetEntry], places: Places) -> list[str]:
    """Download what these entries lack, and decode it. Returns a line for each.

    Raises: DataMissing, DataError.
    """
    from nlbench.data import catalogue, hub

    lines = []
    for entry in entries:
        info = catalogue.info(entry.name, entry.path, places, entry.folder_options)
        lines.append(f"{entry.id}: there, at {info.commit}, in {hub.home()}")
    return lines


def fetch_datasets(names: Sequence[str], folder: Path) -> None:
    """Download what these datasets lack in the data directory `folder`.

    Raises: DataMissing, once everything that can be downloaded is there, with advice for each
        dataset that has to be put there by hand; as `fetch.fetch`.
    """
    from nlbench.data.fetch import fetch
    from nlbench.executors.progress import download_bar

    missing = []
    for name in names:
        try:
            with download_bar(name) as update:
                fetch(name, folder, update)
        except DataMissing as error:
            missing.append(str(error))
    if missing:
        raise DataMissing("\n".join(missing))


# ---- Weights -------------------------------------------------------------------------------------


def _fetched_weights(sweep: Sweep) -> dict[str, Path | None]:
    """Download the published weights that the runs begin with. Returns their files by model."""
    from nlbench import models

    wanted = {(spec.protocol.model, spec.protocol.weights) for spec in sweep.plan.specs}
    found = {}
    for model, weights in sorted(wanted):
        models.fetch_weights(model, weights)
        if weights in models.PUBLISHED:
            found[model] = models.cached_weights(model, weights)
    return found


# ---- What is said --------------------------------------------------------------------------------


def _places(sweep: Sweep, weights: dict[str, Path | None]) -> list[str]:
    """Return a line for each thing that the runs read: where it is, and how large."""
    from nlbench.data import cache, catalogue, hub

    lines = []
    for name in dict.fromkeys(c.dataset for c in sweep.plan.conditions if not c.data_path):
        files = catalogue.status(name, sweep.data_dir).found.paths
        size = _in_words(sum(path.stat().st_size for path in files if path.is_file()))
        lines.append(f"data: {catalogue.advice(name, sweep.data_dir)}{size and f', {size}'}")
    for name, commit in _from_hub(sweep).items():
        lines.append(f"data: {name}: there, at {commit}, in {hub.home()}")
    for entry, made in cache.used_entries().items():
        what = "decoded now" if made else "was there"
        lines.append(f"cache: {entry}: {what}, {_in_words(_size_of(entry))}")
    for model, path in weights.items():
        size = "" if path is None else f", {_in_words(path.stat().st_size)}"
        lines.append(f"weights: {model}: {path or 'in the cache of its package'}{size}")
    for file in dict.fromkeys(spec.weights_path for spec in sweep.plan.specs):
        if file:
            lines.append(f"weights: {file}: there, {_in_words(Path(file).stat().st_size)}")
    return lines


def _from_hub(sweep: Sweep) -> dict[str, str]:
    """Return the commit of each dataset of the Hugging Face hub."""
    commits = {c.dataset: c.folder_options.revision for c in sweep.plan.conditions}
    return {name: commit for name, commit in commits.items() if commit}


def _for_nodes(sweep: Sweep, weights: dict[str, Path | None]) -> list[str]:
    """Return the settings with which machines without network find everything."""
    from nlbench.data import hub
    from nlbench.data.places import Places

    places = Places.of_user(sweep.data_dir)
    settings = {"NLBENCH_DATA": places.data_dir, "NLBENCH_CACHE": places.cache_dir}
    if _from_hub(sweep):
        settings["HF_HOME"] = hub.home()
    for model in weights:
        name, place = _home_of(model)
        settings[name] = place
    lines = ["nothing was trained. A machine without network trains this suite if it sees the same"]
    lines[0] += " folders under the same paths, with"
    for name, place in settings.items():
        lines.append(f"  export {name}={shlex.quote(os.path.abspath(place))}")
    if any(spec.protocol.precision == "auto" for spec in sweep.plan.specs):
        lines.append(
            "precision: auto is decided by the machine that trains, and is a part of the run keys. "
            "Where machines differ, name it: --set precision=float32"
        )
    return lines


def _home_of(model: str) -> tuple[str, Path]:
    """Return the variable that names the cache of a model's package, and its value."""
    if model.startswith("timm/"):
        from huggingface_hub import constants

        return "HF_HOME", Path(constants.HF_HOME)
    import torch

    return "TORCH_HOME", Path(torch.hub.get_dir()).parent


def _size_of(entry: Path) -> int:
    return sum(file.stat().st_size for file in os.scandir(entry) if file.is_file())


def _in_words(size: int) -> str:
    from nlbench.data.missing import megabytes

    return megabytes(size)
