"""BenchOptions: what to measure and where, read from the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nlbench.bench.variants import DTYPES, OPS, SHAPES, TARGET_BYTES, VARIANTS, Shape
from nlbench.errors import UserError, did_you_mean

# Rows of the memory: the size of CIFAR's training set.
NUM_EXAMPLES = 50_000

# Endings of the files that a figure can be written to.
PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class BenchOptions:
    """The settings of a benchmark.

    Attributes:
        op: the op that is timed, see OPS.
        dtypes: data types of the logits, by name.
        seconds: time for each variant of a shape and data type.
        variants: names of the variants, see VARIANTS.
    """

    op: str
    shapes: list[Shape]
    dtypes: list[str]
    seconds: float
    device: torch.device
    variants: list[str]

    @staticmethod
    def read(
        op: str,
        shapes: str,
        dtypes: str,
        seconds: float,
        threads: int | None,
        device: str,
        compiled: bool,
    ) -> BenchOptions:
        """Read the options from the command line's text.

        Args:
            shapes: for example "128x10,1024x1000"; an empty text stands for SHAPES.
            threads: is checked here, and set by the caller.
            compiled: whether torch.compile is timed, too.
        Raises: UserError with every problem, one a line.
        """
        problems: list[str] = []
        if op not in OPS:
            problems.append(f"--op {op}: {_unknown(op, OPS)}")
        read_dtypes = _dtypes(dtypes, problems)
        read_shapes = _shapes(shapes, problems)
        if not 0 < seconds < float("inf"):
            problems.append(f"--seconds {seconds:g}: must be above 0")
        if threads is not None and threads < 1:
            problems.append(f"--threads {threads}: must be 1 or more")

        read_device = _device(device, problems)
        if problems:
            raise UserError("\n".join(problems))

        variants = [name for name in VARIANTS if compiled or name != "compile"]
        return BenchOptions(op, read_shapes, read_dtypes, seconds, read_device, variants)


# ---- Reading text --------------------------------------------------------------------------------


def _unknown(name: str, known: Sequence[str]) -> str:
    return f"unknown. There are: {', '.join(known)}.{did_you_mean(name, known)}"


def _words(text: str) -> list[str]:
    """Return the words between commas, each once."""
    words = [word.strip() for word in text.split(",")]
    return list(dict.fromkeys(word for word in words if word))


def _dtypes(text: str, problems: list[str]) -> list[str]:
    names = _words(text)
    if not names:
        problems.append(f"--dtypes: names none. There are: {', '.join(DTYPES)}.")
    for name in names:
        if name not in DTYPES:
            problems.append(f"--dtypes {name}: {_unknown(name, DTYPES)}")
    return names


def _shapes(text: str, problems: list[str]) -> list[Shape]:
    shapes: list[Shape] = []
    for word in _words(text):
        match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", word)
        if not match:
            example = "Write BxC, rows by classes, as in 128x10,1024x1000"
            problems.append(f"--shapes {word}: not a shape. {example}")
            continue

        shape = Shape(int(match[1]), int(match[2]))
        if shape.B < 1 or shape.C < 2:
            problems.append(f"--shapes {word}: needs at least 1 row and 2 classes")
        elif shape not in shapes:
            shapes.append(shape)
    return shapes if _words(text) else SHAPES


def _device(text: str, problems: list[str]) -> torch.device:
    match = re.fullmatch(r"cpu|cuda(?::(0|[1-9]\d*))?", text)
    count = torch.cuda.device_count()
    if not match:
        problems.append(f"--device {text}: must be cpu, cuda or cuda:N")
    elif text != "cpu" and int(match[1] or 0) >= count:
        gpus = "1 GPU" if count == 1 else f"{count or 'no'} GPUs"
        problems.append(f"--device {text}: torch sees {gpus} here; use cpu")
    else:
        return torch.device(text)
    # A stand-in, which nothing uses: the problem is raised before.
    return torch.device("cpu")


# ---- Files and memory ----------------------------------------------------------------------------


def check_writable(option: str, path: Path, endings: Sequence[str] = ()) -> None:
    """Raise UserError if a file cannot be written there, before minutes are spent measuring."""
    if endings and path.suffix.lower() not in endings:
        raise UserError(f"{option} {path}: must end in {' or '.join(endings)}")
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}")
    # A file that is not there yet needs a folder that may be written to.
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{option} {path}: may not be written")


def num_examples(shape: Shape, device: torch.device) -> int:
    """Return the number of rows of the memory: NUM_EXAMPLES, if they fit.

    The memory may take an eighth of the machine's or the GPU's memory.

    Raises: UserError if a batch of `shape` does not fit.
    """
    if device.type == "cuda":
        # What is free: other programs may hold a part of the GPU's memory.
        memory = torch.cuda.mem_get_info(device)[0]
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    row = TARGET_BYTES * shape.C
    fit = memory // 8 // row
    if fit < shape.B:
        raise UserError(
            f"--shapes {shape}: a memory of {shape.B} rows takes {shape.B * row / 2**30:.1f} GiB, "
            f"and an eighth of this machine's memory is {memory / 8 / 2**30:.1f} GiB"
        )
    return max(shape.B, min(NUM_EXAMPLES, fit))
