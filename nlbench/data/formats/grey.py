"""Find how many of 16 bits the grey pictures of a dataset use.

One picture alone does not tell: a dark one of a camera with 12 bits may need 9 of them. So all are
scaled by what the brightest picture of the dataset needs.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nlbench.data import pixels
from nlbench.data.formats.copies import sizes_and_state
from nlbench.files import write_atomic

# These have 8 bits, and need not be opened.
_EIGHT_BITS = (".jpg", ".jpeg", ".gif", ".bmp", ".webp")

# Pictures a task.
_CHUNK = 32


@dataclass(frozen=True)
class GreyDepths:
    """How many bits the grey pictures of more than 8 bits use.

    Attributes:
        counts: bits -> number of pictures that need them.
        deepest: the first picture of those that need most; empty where there is none.
    """

    counts: dict[int, int] = field(default_factory=dict)
    deepest: str = ""

    @property
    def bits(self) -> int:
        """The bits that the brightest picture uses, by which all are read; 0 without any."""
        return max(self.counts, default=0)

    def notes(self) -> list[str]:
        """Say so when pictures need different bits: a single hot pixel makes the others dark."""
        if len(self.counts) < 2:
            return []
        parts = [f"{bits} bits in {self.counts[bits]}" for bits in sorted(self.counts)]
        usual = max(self.counts, key=lambda bits: self.counts[bits])
        darker = ""
        if usual < self.bits:
            darker = (
                f"; those of {usual} bits are {2 ** (self.bits - usual)} times darker than if read "
                f"alone"
            )
        return [
            f"grey pictures of 16 bits use different depths ({', '.join(parts)}), and all are read "
            f"as of {self.bits} bits, which the brightest needs, the first: {self.deepest}{darker}"
            f". If that is a hot pixel, mend the picture or take it out"
        ]


def grey_depths(paths: Sequence[str], cache_dir: Path) -> GreyDepths:
    """Return how many bits the grey pictures of more than 8 bits use.

    The result is kept in `cache_dir` until the name, size or time of a file changes.
    """
    candidates = [path for path in paths if not path.lower().endswith(_EIGHT_BITS)]
    if not candidates:
        return GreyDepths()
    _, state = sizes_and_state(candidates)
    entry = cache_dir / f"grey-depths-{state}.json"
    try:
        kept = json.loads(entry.read_text(encoding="utf-8"))
        counts = {int(bits): int(count) for bits, count in kept["counts"].items()}
        return GreyDepths(counts, str(kept["deepest"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        deep = [path for path in candidates if _may_be_deep(path)]
        found = _found(deep)

    counts = dict(Counter(bits for bits in found if bits))
    deepest = deep[found.index(max(counts))] if counts else ""
    # The result saves time and nothing else, so a cache that cannot be written is no error.
    with contextlib.suppress(OSError):
        content = json.dumps({"counts": counts, "deepest": deepest}).encode()
        write_atomic(entry, lambda file: file.write(content))
    return GreyDepths(counts, deepest)


def bits_of(paths: Sequence[str]) -> list[int]:
    """Return the bits that each picture uses; 0 for other pictures and for broken ones."""
    from PIL import Image

    found = []
    for path in paths:
        bits = 0
        # A broken picture is reported when it is decoded.
        with contextlib.suppress(Exception), Image.open(path) as image:
            if image.mode.startswith("I"):
                bits = pixels.grey_depth(np.asarray(image))
        found.append(bits)
    return found


def _found(deep: Sequence[str]) -> list[int]:
    """Return the bits of all pictures, decoded on all cores."""
    if not deep:
        return []
    # Imported here, because it loads torch, and listing datasets works without it.
    from nlbench.data import decode

    found: list[int] = []
    for part in decode.in_workers(bits_of, deep, _CHUNK):
        found += part
    return found


def _may_be_deep(path: str) -> bool:
    """Tell by its first bytes whether a file may hold grey of more than 8 bits."""
    try:
        with open(path, "rb") as file:
            start = file.read(26)
    except OSError:
        return False

    # After the signature of a PNG file come width, height, bits and kind of colour; 0 is grey.
    if start.startswith(b"\x89PNG"):
        return start[24:26] == b"\x10\x00"
    return start.startswith((b"II*\0", b"MM\0*"))
