"""Flip single bits of the files that numbers come from, and see what is said and what changes.

    python tests/support/bit_flips.py 300

`Laboratory` makes small stores and caches once. Each flip is made in a fresh copy. What reads the
file is then called as a user would call it, and its result compared with that of the whole file.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from layouts import Folder
from sweeps import listener, outcome, sweep

import nlbench
from nlbench.data import cache
from nlbench.data.datasets import folder
from nlbench.data.places import Places
from nlbench.errors import UserError

SECONDS = 120

UNCHANGED = "unchanged"
NAMED = "named"
SILENT = "CHANGED IN SILENCE"
TRACEBACK = "TRACEBACK"
HANG = "HANG"

# The kinds of files, and how many of 300 flips each gets.
SHARES = {
    "record": 70,
    "history": 30,
    "predictions": 30,
    "plan": 60,
    "cache array": 30,
    "cache file": 30,
    "helper network": 25,
    "checkpoint": 25,
}
FILES = {
    "record": "runs/*/record.json",
    "history": "runs/*/history.csv",
    "predictions": "runs/*/predictions.npz",
    "plan": "suites/*.json",
    "cache array": "cache/x-*/*.*",
    "cache file": "cache/folder-*/**/*",
    "helper network": "fits/*.pt",
    "checkpoint": "runs/*/checkpoint.pt",
}


class Stop(Exception):
    """Ends a run after its checkpoint."""


class Hang(BaseException):
    """Nothing was said for SECONDS."""


@dataclass
class Flip:
    """One flipped bit, and what came of it."""

    kind: str
    file: str
    place: int
    bit: int
    result: str = ""
    said: list[str] = field(default_factory=list)


class Laboratory:
    """Whole stores and caches, by the kind of file that is to be damaged, and what they give.

    Args:
        root: an empty folder for them and for their copies.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._wholes: dict[str, Path] = {}
        self._results: dict[str, object] = {}

    def flip(self, kind: str, generator: random.Random, *, really: bool = True) -> Flip:
        """Flip one bit of a file of this kind, and call what reads it.

        Without `really` the files stay whole, which must come out as UNCHANGED.
        """
        whole = self._whole(kind)
        copy = self._copy(whole)

        files = sorted(path for path in copy.glob(FILES[kind]) if path.is_file())
        path = generator.choice(files)
        content = bytearray(path.read_bytes())
        place, bit = generator.randrange(len(content)), generator.randrange(8)
        if really:
            content[place] ^= 1 << bit
        path.write_bytes(content)

        flip = Flip(kind, str(path.relative_to(copy)), place, bit)
        self._judge(flip, copy)
        return flip

    def _judge(self, flip: Flip, copy: Path) -> None:
        result: object = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            signal.signal(signal.SIGALRM, _hang)
            signal.alarm(SECONDS)
            try:
                result = self._read(flip.kind, copy, flip.said.append)
            except UserError as error:
                flip.said.append(str(error))
            except Hang:
                flip.result = HANG
            except Exception:
                flip.result, flip.said = TRACEBACK, [traceback.format_exc()]
            finally:
                signal.alarm(0)
        flip.said += [str(warning.message) for warning in caught]
        if flip.result:
            return

        # A name of the damaged file, or of the entry that it is in.
        parts = Path(flip.file).parts
        names = {parts[-1], parts[1]} if parts[0] == "cache" else {"/".join(parts[-2:])}
        named = any(name in line for name in names for line in flip.said)
        if result == self._results[flip.kind]:
            flip.result = NAMED if named else UNCHANGED
        else:
            flip.result = NAMED if named else SILENT

    def _read(self, kind: str, place: Path, say: Callable[[str], None]) -> object:
        """Return what a user gets of the files in `place`."""
        if kind == "cache array":
            arrays, facts = _load_arrays(place)
            return facts, {name: array.tobytes() for name, array in arrays.items()}
        if kind == "cache file":
            dataset = folder.load(Places(place / "data", place / "cache"), 0)
            images = dataset.train_images
            contents = [Path(images.path(i)).read_bytes() for i in range(len(images))]
            labels = {name: values.tolist() for name, values in dataset.label_sets.items()}
            return dataset.fingerprint, contents, labels
        if kind in ("helper network", "checkpoint"):
            sw = _sweep(kind, place)
            sw.store.warn = say
            sw.run()
            return {key: repr(value) for key, value in outcome(sw).items()}
        # The notes are part of the table, so that a note about the damage is one that is said.
        text = nlbench.table(place)
        say(text)
        return [line for line in text.splitlines() if not line.startswith("- ")]

    def _whole(self, kind: str) -> Path:
        """Return the whole store or cache for files of this kind, which is made once."""
        made_as = kind if kind in ("helper network", "checkpoint") else kind.partition(" ")[0]
        made_as = made_as if made_as in ("helper network", "checkpoint", "cache") else "store"
        whole = self.root / made_as
        if not whole.exists():
            # Made where the copies will be, for an entry of the cache belongs to a path.
            place = self.root / "copy"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            _make(made_as, place)
            place.rename(whole)
        if kind not in self._results:
            self._results[kind] = self._read(kind, self._copy(whole), lambda line: None)
        return whole

    def _copy(self, whole: Path) -> Path:
        copy = self.root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        # As in a new process.
        cache._checked.clear()
        folder._read.cache_clear()
        return copy


def _make(kind: str, place: Path) -> None:
    """Fill a folder with the whole files."""
    if kind == "cache":
        (place / "source").write_text("x")
        _load_arrays(place)
        Folder().write_parquet(place / "data")
        # Copying gives the parquet files another path, and so another entry.
        folder.load(Places(place / "data", place / "cache"), 0)
    elif kind == "store":
        methods = {"ce": {}, "elr": {}, "gce": {}}
        sweep(place, methods, seeds=(0, 1), epochs=2).run()
    elif kind == "helper network":
        sweep(place, {"forward": {}}, epochs=1).run()
        shutil.rmtree(place / "runs")
    else:

        def stop(spec, epoch, epochs, metrics):
            if epoch == 1:
                raise Stop

        with contextlib.suppress(Stop):
            _sweep(kind, place).run(listener(on_epoch=stop), checkpoint_seconds=0)
        assert list(place.glob(FILES["checkpoint"]))


def _sweep(kind, place):
    if kind == "helper network":
        return sweep(place, {"forward": {}}, epochs=1)
    return sweep(place, {"elr": {}}, epochs=3)


def _load_arrays(place: Path):
    def decode():
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
        arrays = {"train_images": images, "train_labels": np.arange(200) % 10}
        return arrays, {"fingerprint": "0123456789abcdef", "variant": "", "warnings": []}

    return cache.cached(place / "cache", "x", [place / "source"], decode)


def _hang(number, frame):
    raise Hang


def flips(root: Path, count: int, seed: int = 0) -> list[Flip]:
    """Flip `count` bits, shared out over the kinds, each in a fresh copy."""
    laboratory, generator = Laboratory(root), random.Random(seed)
    done = []
    for kind, share in SHARES.items():
        for _ in range(max(1, round(count * share / sum(SHARES.values())))):
            done.append(laboratory.flip(kind, generator))
    return done


def report(done: list[Flip]) -> str:
    """Return the counts by kind and result, and every flip that is none of the good results."""
    results = (UNCHANGED, NAMED, SILENT, TRACEBACK, HANG)
    counts = Counter((flip.kind, flip.result) for flip in done)
    lines = [f"{'file':16}" + "".join(f"{result:>20}" for result in results)]
    for kind in SHARES:
        numbers = "".join(f"{counts[kind, result]:20}" for result in results)
        lines.append(f"{kind:16}{numbers}")
    totals = Counter(flip.result for flip in done)
    lines.append(f"{'all':16}" + "".join(f"{totals[result]:20}" for result in results))
    for flip in done:
        if flip.result not in (UNCHANGED, NAMED):
            said = " | ".join(flip.said)
            lines.append(f"{flip.result}: {flip.file} byte {flip.place} bit {flip.bit}: {said}")
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        found = flips(Path(temporary), int(sys.argv[1]))
    print(report(found))
    print("\nevery flip:")
    for one in found:
        lines = [line for text in one.said for line in text.splitlines()]
        said_first = next((line for line in lines if Path(one.file).name in line), "")
        print(f"{one.result:10} {one.file} byte {one.place} bit {one.bit}: {said_first[:200]}")
