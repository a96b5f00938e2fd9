"""Let each write of a scene fail, one after the other, and go on with the same scene.

    python tests/support/every_write.py FOLDER [--scene suite] [--every 1] [--first 1]
        [--errno ENOSPC] [--once]

A process that has imported and trained everything is forked for each write, so that it costs the
runs alone. The disk is `full_disk.c`. It prints a line for each write that went wrong, and a
summary.
"""

import argparse
import contextlib
import ctypes
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

SHIM = Path(__file__).with_name("full_disk.c")

SUITE = {
    "name": "small",
    "protocol": "digits",
    "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
    "methods": {"ce": {}, "forward": {}, "elr-plus": {}},
    "seeds": [0, 1],
    "overrides": {"epochs": 2, "subset": 60},
}


def compiled(folder: Path) -> Path:
    """Compile the disk, and return the library."""
    library = folder / "full_disk.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", library, SHIM, "-ldl"], check=True, text=True
    )
    return library


def suite(out: Path) -> str:
    """Train what the suite lacks in the store `out`, and return its table."""
    from nlbench import api
    from nlbench.results import table

    sweep = api.prepare(SUITE, out=out, device="cpu")
    sweep.run(checkpoint_seconds=0)
    return table.render(sweep.plan.as_json(), sweep.store, methods=sweep.methods)


def store(out: Path) -> str:
    """Write a plan, two checkpoints, a helper network and two records, and return what is there."""
    import numpy as np
    import torch

    from nlbench.plan.spec import key_of
    from nlbench.results.leftovers import tidy
    from nlbench.results.record import RunRecord
    from nlbench.results.store import Store
    from nlbench.training.checkpoint import Checkpoint

    made = Store(out)
    made.require_writable()
    made.write_plan(PLAN)
    state = {"weights": torch.arange(5000.0), "epoch": 1}
    helper = Checkpoint(made, out / "fits" / f"{'f' * 16}.pt", {"helper": "f"})
    if helper.load() is None:
        helper.save(state)
    for seed in (0, 1):
        spec = {"method": "ce", "seed": seed}
        key = key_of(spec)
        with made.lock(key) as mine:
            assert mine
            if made.read(key) is not None:
                continue
            checkpoint = Checkpoint(made, made.run_dir(key) / "checkpoint.pt", {"run": key})
            if checkpoint.load() is None:
                checkpoint.save(state)
            parts = {name: {} for name in ("noise", "timing", "environment", "method")}
            record = RunRecord(
                key=key, status="done", spec=spec, metrics={"last": 0.5}, code="c", **parts
            )
            made.write(record, [{"epoch": 0}], {"test": np.arange(3000)})

    # As the next `nlbench run` does.
    tidy(made, made.run_keys())
    assert not list(out.glob("runs/*/checkpoint.pt"))
    records = [made.read(key) for key in made.run_keys()]
    return f"{records} {made.plan('small')} {helper.load()['epoch']}"


def cache(out: Path) -> str:
    """Decode arrays and files into a cache, and return what it holds."""
    import warnings

    import numpy as np

    from nlbench.data import cache as caches

    caches._checked.clear()
    out.parent.mkdir(exist_ok=True, parents=True)
    source = out.parent.parent / "source"
    source.touch()
    made = {"images": np.arange(30_000, dtype=np.uint8), "labels": np.arange(100)}

    def write(folder: Path) -> list[list[str]]:
        names = [f"{i}-{caches.short_hash(bytes([i]))}" for i in range(3)]
        for i, name in enumerate(names):
            with caches.writing(folder / name, 1):
                (folder / name).write_bytes(bytes([i]))
        return [[name] for name in names]

    with warnings.catch_warnings():
        # No entry may be damaged.
        warnings.simplefilter("error")
        arrays, facts = caches.cached(out, "x", [source], lambda: (made, {"fact": 1}))
        lines = caches.cached_files(out / "files", write)
    sums = {name: int(array.sum()) for name, array in arrays.items()}
    contents = [(out / "files" / name).read_bytes() for (name,) in lines]
    return f"{sums} {facts} {lines} {contents}"


SCENES = {"suite": suite, "store": store, "cache": cache}

PLAN = {
    "schema": 1,
    "suite": "small",
    "track": "identical",
    "protocol": "digits",
    "notes": [],
    "tries": False,
    "rows": [{"row": "ce", "method": "ce", "told": [], "networks": 1}],
    "conditions": ["A"],
    "seeds": [0],
    "cells": [{"row": "ce", "condition": 0, "seed": 0, "key": "0" * 16}],
}


def damage_of(out: Path) -> list[str]:
    """Return what is wrong with the store as it is left: it must be empty."""
    from nlbench.results.store import Store

    said: list[str] = []
    left = Store(out, said.append)
    for key in left.run_keys():
        left.check(key)
    for name in left.plan_names():
        left.plan(name)
    return said


def forked(function, *values):
    """Return what a function returns, or the error that it raises, in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            result = function(*values)
        except BaseException as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            result = {"error": str(error), "kinds": kinds, "trace": traceback.format_exc()}
        with os.fdopen(writing, "w") as file:
            json.dump(result, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {"error": "the process was killed", "kinds": []}


class Disk:
    """The library in this process, which `LD_PRELOAD` has loaded."""

    def __init__(self, library: str):
        self._library = ctypes.CDLL(library)
        kinds = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
        self._library.disk_arm.argtypes = kinds
        self._library.disk_counted.restype = ctypes.c_long

    def arm(self, root: Path, at: int, number: int = errno.ENOSPC, stays: bool = True) -> None:
        self._library.disk_arm(os.fsencode(root), at, number, stays)

    def counted(self) -> int:
        return self._library.disk_counted()


def on_full_disk(
    run, disk: Disk, out: Path, at: int, number: int, stays: bool
) -> dict[str, object]:
    """Play a scene on a disk whose write number `at` fails. Returns what was said and left."""
    disk.arm(out.parent, at, number, stays)
    try:
        table, error, kinds = run(out), "", []
    except BaseException as raised:
        table, error, kinds = "", str(raised), [kind.__name__ for kind in type(raised).__mro__]
    finally:
        disk.arm(out.parent, 0)
    return {"table": table, "error": error, "kinds": kinds, "damage": damage_of(out)}


def problem_of(first: dict, again: object, whole: str, number: int) -> str:
    """Return what is wrong with how a write that failed was handled, or an empty text."""
    if first.get("damage"):
        return f"damaged: {first['damage']}"
    if again != whole:
        return f"another table afterwards: {again}"
    if first["error"]:
        if not {"NotWritten", "UserError"} & set(first["kinds"]):
            return f"an error for developers: {first['kinds'][0]}: {first['error']}"
        if os.strerror(number) not in first["error"]:
            return f"does not say why: {first['error']}"
        if number == errno.ENOSPC and " free there" not in first["error"]:
            return f"does not say what is free: {first['error']}"
    # What is written last may be of no use for a result, such as the mark of a checked cache.
    elif first["table"] != whole:
        return f"another table: {first['table']}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scene", choices=SCENES, default="suite")
    parser.add_argument("--every", type=int, default=1, help="try each n-th write only")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--errno", default="ENOSPC")
    parser.add_argument("--once", action="store_true", help="one write alone fails")
    options = parser.parse_args()
    folder, number = options.folder.absolute(), getattr(errno, options.errno)
    folder.mkdir(parents=True, exist_ok=True)
    if "LD_PRELOAD" not in os.environ:
        library = compiled(folder)
        environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "OMP_NUM_THREADS": "1",
            "NLBENCH_EXECUTOR": "local",
        }
        os.execve(sys.executable, [sys.executable, __file__, *sys.argv[1:]], environment)

    disk = Disk(os.environ["LD_PRELOAD"])
    run = SCENES[options.scene]
    disk.arm(folder / "whole", 0)
    whole = run(folder / "whole" / "out")

    def count(out: Path) -> int:
        disk.arm(out.parent, 0)
        run(out)
        return disk.counted()

    writes = forked(count, folder / "count" / "out")
    problems, quiet, longest, began = 0, 0, "", time.monotonic()
    chosen = range(options.first, writes + 1, options.every)
    for at in chosen:
        # The folder of the store is made, too.
        out = folder / f"at-{at}" / "out"
        out.parent.mkdir()
        with contextlib.redirect_stderr(io.StringIO()):
            first = forked(on_full_disk, run, disk, out, at, number, not options.once)
            again = forked(run, out)
        problem = problem_of(first, again, whole, number)
        if problem:
            problems += 1
            print(f"write {at}: {problem}")
        quiet += not first.get("error")
        longest = max(longest, str(first.get("error", "")), key=len)
        shutil.rmtree(out.parent)
    print(
        f"{len(chosen)} of {writes} writes failed, {quiet} without an error of the suite; "
        f"{problems} went wrong; {time.monotonic() - began:.0f} s; for example: {longest}"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
