"""Turn the options of `nlbench run` from text into plain values.

`nlbench bench` measures on one device and has other options: see `nlbench.bench.options`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from nlbench import registry
from nlbench.errors import SuiteError
from nlbench.plan.shards import Shard
from nlbench.plan.yaml_lines import NotYaml, parse_yaml, plain

# Runs to train at once on each device. "auto" is as many as the CPU cores allow.
Jobs = int | Literal["auto"]

# A run without a step, an epoch or another sign of life in this time is taken to hang.
DEFAULT_TIMEOUT_MINUTES = 60.0

# A job array of Slurm has at most so many tasks, and usually fewer.
MOST_SHARDS = 10_000

# More seeds than this are a typing mistake, and would fill the memory with runs.
MOST_SEEDS = 10_000


def parse_set(settings: Iterable[str]) -> dict[str, object]:
    """Return `--set` options such as "epochs=2" and "schedule.gamma=0.1" as protocol overrides.

    Raises: SuiteError.
    """
    overrides: dict[str, object] = {}
    for setting in settings:
        key, _, text = (part.strip() for part in setting.partition("="))
        *parents, last = key.split(".")
        if not text or not all([*parents, last]):
            message = f"--set {setting}: write it as KEY=VALUE, for example --set epochs=2"
            raise SuiteError(message)
        # Read as YAML, so that a value means the same here as in a suite.
        try:
            value = plain(parse_yaml(text))
        except NotYaml as error:
            message = f"--set {setting}: {text!r} cannot be read as a value: {error}"
            raise SuiteError(message) from None

        node = overrides
        for part in parents:
            inner = node.setdefault(part, {})
            if not isinstance(inner, dict):
                message = f"another --set gives {part!r} a single value; keep one of them"
                raise SuiteError(f"--set {setting}: {message}")
            node = inner
        node[last] = value
    return overrides


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of `--seeds`, written as "0,1,4" or "0-4". Raises SuiteError."""
    seeds: list[int] = []
    for part in text.split(","):
        # Any number of 18 digits fits an int64, as a seed must.
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        if match is None:
            raise SuiteError(f"--seeds {text}: write seeds as 0,1 or as 0-4")

        first, last = int(match[1]), int(match[2] or match[1])
        count = last - first + 1
        if count < 1:
            raise SuiteError(f"--seeds {text}: write seeds as 0,1 or as 0-4")
        if count > MOST_SEEDS:
            message = f"{part} are {count:,} seeds; at most {MOST_SEEDS:,} can be given"
            raise SuiteError(f"--seeds {text}: {message}")
        seeds += range(first, last + 1)
    # Overlapping ranges name a seed twice. It is trained once.
    return list(dict.fromkeys(seeds))


def parse_only(text: str) -> list[str]:
    """Return the rows of `--only`, written as "ce,elr". Raises SuiteError."""
    return parse_list("--only", text, "rows as ce,elr")


def parse_list(option: str, text: str, example: str) -> list[str]:
    """Return the names that an option lists, each once. Raises SuiteError for an empty name."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise SuiteError(f"{option} {text!r}: write {example}")
    return list(dict.fromkeys(names))


def parse_jobs(text: str) -> Jobs:
    """Return the number of `--jobs`, or "auto". Raises SuiteError."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) == 0:
        raise SuiteError(f"--jobs {text!r}: must be auto or a number from 1 on")
    return int(text)


def parse_shard(text: str, leftovers: bool = True) -> Shard:
    """Return the shard of `--shard`, written as "2/8". Raises SuiteError."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if match is None:
        raise SuiteError(
            f"--shard {text!r}: write the number of the shard and how many there are, as 2/8"
        )
    number, count = int(match[1]), int(match[2])
    if count > MOST_SHARDS:
        raise SuiteError(f"--shard {text}: at most {MOST_SHARDS:,} shards are possible")
    if count == 0:
        raise SuiteError(f"--shard {text}: there must be at least 1 shard, as in --shard 1/1")
    if number == 0:
        raise SuiteError(
            f"--shard {text}: shards are counted from 1, so the last is {count}/{count}. For Slurm "
            f"write #SBATCH --array=1-{count}, or add 1 to a number that begins at 0: "
            f"--shard $((SLURM_ARRAY_TASK_ID + 1))/{count}"
        )
    if number > count:
        raise SuiteError(
            f"--shard {text}: of {count} shards the last is {count}/{count}; did you mean "
            f"--shard {count}/{number}?"
        )
    return Shard(number, count, leftovers)


# What a time is written in, in seconds.
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def parse_budget(text: str) -> float:
    """Return the seconds of `--budget`: "6h", "1h30m", "90m", "3600s", "1:30:00", "1-12:00:00".

    Raises: SuiteError.
    """
    parts = re.fullmatch(
        r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", text.strip()
    )
    clock = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9}):([0-5]\d):([0-5]\d)", text.strip())
    found = clock or parts
    seconds = 0.0
    if found is not None:
        for number, unit in zip(found.groups(), _UNITS.values(), strict=True):
            seconds += unit * int(number or 0)
    if seconds == 0:
        raise SuiteError(
            f"--budget {text!r}: write a time above 0 as 6h, 90m, 3600s, 1h30m or, with hours, "
            "minutes and seconds, as 1:30:00"
        )
    return seconds


def parse_devices(text: str) -> tuple[str, ...]:
    """Return the names of `--device`: one of auto, cpu, cuda and cuda:1, or "cuda:0,cuda:2" as two.

    `executors.base.pick_devices` checks that they exist.

    Raises: SuiteError.
    """
    names = tuple(text.split(","))
    if names == ("auto",):
        return names

    for name in names:
        if not re.fullmatch(r"cpu|cuda(:(0|[1-9]\d*))?", name):
            raise SuiteError(f"--device {name}: must be auto, cpu, cuda or cuda:NUMBER")

    if len(names) > 1:
        numbered = {name for name in names if ":" in name}
        if len(numbered) < len(names):
            message = "of several devices each must be another cuda:NUMBER"
            raise SuiteError(f"--device {text}: {message}")
    return names


def devices_of_gpus(gpus: str, device: str = "auto") -> str:
    """Return `--gpus 0,2` as a text for `--device`.

    Args:
        device: `--device`, which excludes `--gpus`.
    Raises: SuiteError.
    """
    if device != "auto":
        message = f"--gpus {gpus} and --device {device} exclude each other; give one of them"
        raise SuiteError(message)
    if not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise SuiteError(f"--gpus {gpus!r}: write the numbers of GPUs as 0,2")
    return ",".join(f"cuda:{number}" for number in gpus.split(","))


# ---- The way back --------------------------------------------------------------------------------


def command_line(
    suite: Path | None,
    *,
    settings: Mapping[str, object],
    seeds: Sequence[int] = (),
    methods_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> str:
    """Return a command `nlbench run ...` that asks for these runs, from any folder.

    Args:
        suite: the file; None for a suite that is in none, which no command can name.
        settings: what `parse_set` returns.
        seeds: empty for those of the suite.
    """
    if suite is None:
        return ""
    shipped = {path.resolve(): name for name, path in registry.suite_files().items()}
    words = ["nlbench", "run", shipped.get(suite.resolve(), str(suite.resolve()))]
    for key, value in _flat(settings):
        # Text stays as it is, and everything else is written as JSON, which is YAML, too.
        words += [
            "--set",
            f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}",
        ]
    if seeds:
        words += ["--seeds", ",".join(map(str, seeds))]
    for option, folder in (("--methods-dir", methods_dir), ("--data-dir", data_dir)):
        if folder is not None:
            words += [option, os.path.realpath(os.path.expanduser(folder))]
    return shlex.join(words)


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
