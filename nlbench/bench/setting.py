"""Setting."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nlbench.bench.variants import DTYPES, NUM_EXAMPLES, OPS, SHAPES, TARGET_BYTES, VARIANTS, Shape
from nlbench.errors import UserError, did_you_mean

ROUNDS = 20


@dataclass(frozen=True)
class Setting:
    """What to measure. `read` makes one from the command line's text."""

    op: str
    shapes: list[Shape]
    dtypes: list[str]
    seconds: float  # per variant
    device: torch.device
    variants: list[str]

    @staticmethod
    def read(
        op: str, shapes: str, dtypes: str, seconds: float, threads: int | None, device: str, compiled: bool
    ) -> Setting:
        """No shapes are SHAPES. Raises UserError with every problem, one a line."""
        problems: list[str] = []
        if op not in OPS:
            problems.append(f"--op {op}: unknown. There are: {', '.join(OPS)}.{did_you_mean(op, OPS)}")
        names = _words(dtypes)
        for name in names:
            if name not in DTYPES:
                known = f"There are: {', '.join(DTYPES)}.{did_you_mean(name, DTYPES)}"
                problems.append(f"--dtypes {name}: unknown. {known}")
        if not names:
            problems.append(f"--dtypes: names none. There are: {', '.join(DTYPES)}.")
        read = [_shape(text, problems) for text in _words(shapes)] or SHAPES
        if not 0 < seconds < float("inf"):
            problems.append(f"--seconds {seconds:g}: must be above 0")
        if threads is not None and threads < 1:
            problems.append(f"--threads {threads}: must be 1 or more")
        where = _device(device, problems)
        if problems:
            raise UserError("\n".join(problems))
        variants = [name for name in VARIANTS if compiled or name != "compile"]
        kept = list(dict.fromkeys(shape for shape in read if shape))
        return Setting(op, kept, list(dict.fromkeys(names)), seconds, where, variants)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _shape(text: str, problems: list[str]) -> Shape | None:
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if not match:
        problems.append(f"--shapes {text}: not a shape. Write BxC, rows by classes, as in 128x10,1024x1000")
        return None
    shape = Shape(int(match[1]), int(match[2]))
    if shape.B < 1 or shape.C < 2:
        problems.append(f"--shapes {text}: needs at least 1 row and 2 classes")
        return None
    return shape


def _device(text: str, problems: list[str]) -> torch.device:
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", text)
    if not match:
        problems.append(f"--device {text}: must be cpu, cuda or cuda:N")
    elif text != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        problems.append(f"--device {text}: torch sees {torch.cuda.device_count() or 'no'} GPU here")
    else:
        return torch.device(text)
    return torch.device("cpu")


def check_writable(option: str, path: Path, endings: Sequence[str] = ()) -> None:
    """UserError unless a file can be written there, before minutes are spent on its content."""
    if endings and path.suffix.lower() not in endings:
        raise UserError(f"{option} {path}: must end in {' or '.join(endings)}")
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{option} {path}: may not be written")


def num_examples(shape: Shape, device: torch.device) -> int:
    """Rows of the memory: as CIFAR has, or what an eighth of the machine's memory holds; UserError when under B."""
    if device.type == "cuda":
        memory = torch.cuda.mem_get_info(device)[0]
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fit = memory // 8 // (TARGET_BYTES * shape.C)
    if fit < shape.B:
        raise UserError(
            f"--shapes {shape}: a memory of {shape.B} rows takes {TARGET_BYTES * shape.B * shape.C / 2**30:.1f} GiB, "
            f"and an eighth of this machine's memory is {memory / 8 / 2**30:.1f} GiB"
        )
    return max(shape.B, min(NUM_EXAMPLES, fit))
