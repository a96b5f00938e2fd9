"""Measure on a GPU, in the order of worth, what can be had in a given time.

    python tests/benchmarks/on_gpu.py --out FOLDER --data-dir DIR --seconds 540
    python tests/benchmarks/on_gpu.py --out FOLDER --tiny     # tries the script on a CPU

The parts, one after the other, each in a process of its own:

- tests: the tests that need a GPU;
- resnet34, resnet9, resnet8: images/s of ELR on CIFAR-10 with single kernels, with the network's
  passes as graphs (as it is), with whole steps, with whole steps and torch.compile, and by the
  straightforward loop. They take turns, a training of some epochs each;
- suite: `cifar10n-fast`, ten methods, one seed, with whole steps.

Each part keeps what it has in FOLDER/parts, so that the same command goes on where the time was
over. After each part the report is written anew: FOLDER/HARDWARE.md and .csv, for docs/benchmarks.
Without --data-dir the pictures are random, which costs the same, and the suite is left out.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from straightforward import Apart, Setting
from training import prepared, read

from nlbench import hardware, ops, registry
from nlbench.executors import base
from nlbench.plan import protocol as protocols
from nlbench.plan.spec import RunSpec
from nlbench.results.store import Store
from nlbench.training.context import EpochMetrics, Listener, RunOptions
from nlbench.training.run_data import RunData
from nlbench.training.train import train

# The least seconds that a part is begun with, in the order of worth.
PARTS = {"tests": 60, "resnet34": 60, "resnet9": 40, "resnet8": 40, "suite": 60}
# Seconds that a part which is ended may take to write what it has.
SPARE = 10.0
MODELS = ("resnet34", "resnet9", "resnet8")
SUITE = "cifar10n-fast"

STRAIGHT = "straightforward loop, float32"
AS_IT_IS = "the passes as graphs (as it is)"
WHOLE = "whole steps"

# The goals on an H200: images/s, times the straightforward loop, seconds of the suite.
LEAST_SPEED = {"resnet34": 33_000, "resnet9": 120_000}
LEAST_RATIO = {"resnet34": 4.5}
MOST_SECONDS = 300


@dataclass(frozen=True)
class Way:
    """A way to train. The rates of "one-cycle" change with each step, those of "constant" never."""

    schedule: str = "constant"
    cuda_graphs: bool = True
    whole_steps: bool = False
    compiled: bool = False


WAYS = {
    AS_IT_IS: Way(),
    WHOLE: Way(whole_steps=True),
    "whole steps, torch.compile": Way(whole_steps=True, compiled=True),
    "single kernels": Way(cuda_graphs=False),
    "the passes as graphs, one-cycle": Way(schedule="one-cycle"),
    "whole steps, one-cycle": Way(schedule="one-cycle", whole_steps=True),
}
# The ways that must give the same numbers.
ALIKE = {
    WHOLE: AS_IT_IS,
    "single kernels": AS_IT_IS,
    "whole steps, one-cycle": "the passes as graphs, one-cycle",
}


# ---- What a part keeps ---------------------------------------------------------------------------


class Kept:
    """The results of a part, in a file that is written after each of them."""

    def __init__(self, folder: Path, part: str):
        self.path = folder / "parts" / f"{part}.json"
        self.values: dict[str, Any] = {}
        if self.path.exists():
            self.values = json.loads(self.path.read_text())

    def update(self, **values: Any) -> None:
        """Set values, and write all of them."""
        self.values.update(values)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.values, indent=1))
        new.replace(self.path)


# ---- The tests -----------------------------------------------------------------------------------


def run_tests(given: argparse.Namespace, kept: Kept) -> None:
    """Run the tests that need a GPU, and keep the line that pytest ends with."""
    tests = Path(__file__).parents[1]
    chosen = ["training/test_step.py", "training/test_whole_step.py"] if given.tiny else ["."]
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "gpu", "-rf", *chosen]
    ended = subprocess.run(command, cwd=tests, text=True, capture_output=True, check=False)
    print(ended.stdout[-4000:], ended.stderr[-2000:], flush=True)

    lines = [line for line in ended.stdout.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith("FAILED")]
    kept.update(summary=lines[-1] if lines else "no output", failed=failed, rc=ended.returncode)
    kept.update(done=True)


# ---- Speeds --------------------------------------------------------------------------------------


def measure_model(model: str, given: argparse.Namespace, kept: Kept) -> None:
    """Train in all ways in turn, and keep the images/s of each training."""
    device = base.pick_devices("cpu" if given.tiny else given.device)[0]
    images, epochs, rounds = (128, 2, 1) if given.tiny else (50_000, 4, given.rounds)
    dataset = read(given.data_dir, images)
    values = {
        "model": "cnn3" if given.tiny else model,
        "epochs": epochs,
        "precision": hardware.precision([device]),
        "threads": 1 if given.tiny else 4,
        "subset": 0 if images == dataset.info.num_train else images,
        "batch_size": 16 if given.tiny else 128,
    }
    sizes = {"precision": values["precision"], "batch": values["batch_size"]}
    kept.update(images=images, epochs=epochs, **sizes)
    names = [name for name, way in WAYS.items() if not (given.tiny and way.compiled)]

    plain = protocols.resolve("cifarn-02", "cifar10", values)
    _, data = prepared(dataset, plain)
    setting = Setting(
        data.train_images, data.labels, data.info, plain, device, 0 if given.tiny else 4
    )
    with Apart(setting) as loop:
        loop.epoch()
        for number in range(rounds):
            speeds = kept.values.get("speeds", {})
            if len(speeds.get(STRAIGHT, [])) <= number:
                add_speed(kept, STRAIGHT, loop.epoch().images_per_second)
            for name in names:
                if len(speeds.get(name, [])) > number:
                    continue
                way = WAYS[name]
                schedule = {"kind": way.schedule}
                own = {**values, "schedule": schedule, "compile": way.compiled}
                spec, data = prepared(dataset, protocols.resolve("cifarn-02", "cifar10", own))
                measure_way(name, spec, data, device, kept)
    kept.update(done=True)


def measure_way(name: str, spec: RunSpec, data: RunData, device: torch.device, kept: Kept) -> None:
    """Train ELR in one way, and keep its images/s, its numbers and its memory."""
    way, speeds, numbers = WAYS[name], [], []

    def on_epoch(spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        # In the first epoch kernels are chosen, compiled and captured.
        if epoch:
            speeds.append(float(metrics["images_per_second"] or 0.0))
        clock = ("seconds", "images_per_second")
        numbers.append({key: value for key, value in metrics.items() if key not in clock})

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    listener = Listener()
    listener.on_epoch = on_epoch  # type: ignore[method-assign]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        options = RunOptions(
            devices=(device,),
            data_dir=Path(out),
            methods=registry.method_files([]),
            # Writing checkpoints is not part of an epoch.
            checkpoint_seconds=float("inf"),
            cuda_graphs=way.cuda_graphs,
            whole_steps=way.whole_steps,
        )
        record = train(spec, data, options, Store(out), listener)
    if record.status != "done":
        raise RuntimeError(f"the run of ELR is {record.status}: {record.error}")

    memory = 0.0
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 2**20
    digest = hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()[:12]
    for key, value in (
        ("digests", digest),
        ("memory", round(memory)),
        ("losses", numbers[-1]["loss"]),
        ("run_seconds", round(time.monotonic() - began, 1)),
    ):
        kept.update(**{key: {**kept.values.get(key, {}), name: value}})
    add_speed(kept, name, statistics.median(speeds))


def add_speed(kept: Kept, name: str, speed: float) -> None:
    """Keep the images/s of one more training."""
    speeds = kept.values.get("speeds", {})
    kept.update(speeds={**speeds, name: [*speeds.get(name, []), speed]})
    print(f"{kept.path.stem}: {name}: {speed:,.0f} images/s", flush=True)


# ---- The suite -----------------------------------------------------------------------------------


def run_suite(given: argparse.Namespace, kept: Kept) -> None:
    """Train the suite's ten methods with one seed, and keep the seconds of the whole command."""
    if given.data_dir is None:
        kept.update(done=True, missing="CIFAR-10N: give --data-dir")
        return
    begin = "import sys; from nlbench.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", begin, "run", SUITE, "--seeds", "0"]
    command += ["--out", str(given.out / "store"), "--data-dir", str(given.data_dir)]
    if given.tiny:
        command += ["--device", "cpu", "--only", "ce,elr", "--set", "epochs=1"]
        command += ["--set", "subset=200", "--set", "model=cnn3", "--set", "precision=float32"]
    else:
        command += ["--device", given.device, "--whole-steps"]

    # A command that is ended leaves its seconds, and the runs that are done.
    before, began = kept.values.get("seconds", 0.0), time.monotonic()
    running = subprocess.Popen(command)
    while running.poll() is None:
        time.sleep(0.5)
        kept.update(seconds=before + time.monotonic() - began)
    records = list((given.out / "store" / "runs").glob("*/record.json"))
    kept.update(rc=running.returncode, runs=len(records), done=running.returncode == 0)
    if running.returncode:
        raise SystemExit(f"nlbench run {SUITE} ended with exit status {running.returncode}")


# ---- The report ----------------------------------------------------------------------------------


def setting_of(given: argparse.Namespace) -> dict[str, object]:
    """Return the hardware and the versions."""
    device = base.pick_devices("cpu" if given.tiny else given.device)[0]
    return {
        "device": hardware.device_name(device),
        "processor": hardware.processor(),
        "cores": hardware.cores(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else "",
        "nlbench": version("nlbench"),
        "ops": ops.backend(device),
        "kernels": ops.source_hash()[:16],
        "data": "random pictures" if given.data_dir is None else "CIFAR-10",
        "sizes": "tiny, so that the figures mean nothing" if given.tiny else "as in a benchmark",
    }


def write_report(given: argparse.Namespace) -> Path:
    """Write the Markdown and the CSV file of all parts so far; return the Markdown file."""
    setting = setting_of(given)
    slug = re.sub(r"[^a-z0-9]+", "-", str(setting["device"]).lower()).strip("-")
    path = given.out / f"{slug}-{'tiny' if given.tiny else 'training'}.md"
    kept = {part: Kept(given.out, part).values for part in PARTS}
    path.write_text("\n".join(report(setting, kept)) + "\n")

    rows = list(table(setting, kept))
    with open(path.with_suffix(".csv"), "w", newline="") as file:
        columns = dict.fromkeys(column for row in rows for column in row)
        writer = csv.DictWriter(file, fieldnames=list(columns))
        writer.writeheader()
        writer.writerows(rows)
    return path


def table(setting: dict[str, object], kept: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the CSV file: a way to train a model, or the suite."""
    for model in MODELS:
        values = kept[model]
        for name, speeds in values.get("speeds", {}).items():
            yield {
                "part": model,
                "way": name,
                "images_per_second": round(statistics.median(speeds), 1),
                "lowest": round(min(speeds), 1),
                "highest": round(max(speeds), 1),
                "trainings": len(speeds),
                "same_numbers": same(values, name),
                "megabytes": values.get("memory", {}).get(name, ""),
                "last_loss": values.get("losses", {}).get(name, ""),
                "seconds": values.get("run_seconds", {}).get(name, ""),
                **{key: values[key] for key in ("images", "epochs", "precision", "batch")},
                **setting,
            }
    suite = kept["suite"]
    if suite.get("done") and "missing" not in suite:
        yield {
            "part": SUITE,
            "way": WHOLE,
            "trainings": suite["runs"],
            "seconds": round(suite["seconds"]),
            **setting,
        }


def same(values: dict[str, Any], name: str) -> str:
    """Say whether a way gave the numbers of the one that it must be like; "" if there is none."""
    digests = values.get("digests", {})
    if name not in digests or ALIKE.get(name) not in digests:
        return ""
    return "yes" if digests[name] == digests[ALIKE[name]] else "NO"


def report(setting: dict[str, object], kept: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"# Training on {setting['device']}"
    yield ""
    yield ", ".join(f"{key}: {value}" for key, value in setting.items()) + "."
    yield ""
    tests = kept["tests"]
    yield f"Tests that need a GPU: {tests.get('summary', 'not run')}"
    yield from (f"- {line}" for line in tests.get("failed", []))
    yield ""
    for model in MODELS:
        yield from report_model(model, kept[model])
    yield f"## {SUITE}, one seed"
    yield ""
    yield suite_in_words(kept["suite"])


def report_model(model: str, values: dict[str, Any]) -> Iterator[str]:
    """Yield the table of one model, and its goals."""
    yield f"## {model}"
    yield ""
    speeds = {name: statistics.median(each) for name, each in values.get("speeds", {}).items()}
    if not speeds:
        yield "Not measured: there was no time left."
        yield ""
        return
    whole = "all" if values.get("done") else "NOT ALL"
    sizes = f"{values['images']:,} images in batches of {values['batch']}"
    yield f"ELR, {values['precision']}, {sizes}. The figures are medians of {values['epochs'] - 1}"
    yield f"epochs, and of the trainings. Of the ways, {whole} were measured."
    yield ""
    yield "| way | images/s | lowest to highest | times the loop | same numbers | MB | trainings |"
    yield "| --- | ---: | ---: | ---: | --- | ---: | ---: |"
    for name, each in values["speeds"].items():
        ratio = f"{speeds[name] / speeds[STRAIGHT]:.2f}" if STRAIGHT in speeds else ""
        spread = f"{min(each):,.0f} to {max(each):,.0f}"
        memory = values.get("memory", {}).get(name, "")
        parts = name, f"{speeds[name]:,.0f}", spread, ratio, same(values, name), memory, len(each)
        yield "| " + " | ".join(map(str, parts)) + " |"
    yield ""
    yield from goals(model, speeds)


def goals(model: str, speeds: dict[str, float]) -> Iterator[str]:
    """Yield a line for each goal of a model, with what was reached."""
    ours = {name: speed for name, speed in speeds.items() if name in WAYS}
    if not ours or model not in LEAST_SPEED:
        return
    best = max(ours, key=ours.__getitem__)
    words = "reached" if ours[best] >= LEAST_SPEED[model] else "NOT reached"
    yield f"- Goal of {LEAST_SPEED[model]:,} images/s: {words}, {ours[best]:,.0f} ({best})."
    if model in LEAST_RATIO and STRAIGHT in speeds:
        ratio = ours[best] / speeds[STRAIGHT]
        least = LEAST_RATIO[model]
        words = "reached" if ratio >= least else "NOT reached"
        yield f"- Goal of {least:g} times the straightforward loop: {words}, {ratio:.2f}."
    yield ""


def suite_in_words(values: dict[str, Any]) -> str:
    """Return what the suite took."""
    if not values:
        return "Not measured: there was no time left."
    if "missing" in values:
        return f"Not measured: {values['missing']}."
    seconds = f"{values.get('seconds', 0.0):.0f} s"
    if not values.get("done"):
        return f"Not done after {seconds}, with {values.get('runs', 'some')} runs."
    words = "reached" if values["seconds"] <= MOST_SECONDS else "NOT reached"
    return f"{values['runs']} runs in {seconds}. Goal of {MOST_SECONDS} s: {words}."


# ---- The command ---------------------------------------------------------------------------------


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of parts and report")
    parser.add_argument("--data-dir", type=Path, help="the folder of CIFAR-10 and CIFAR-10N")
    parser.add_argument("--seconds", type=float, default=540, help="for everything together")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each way")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS), help="of these: %(default)s")
    parser.add_argument(
        "--tiny", action="store_true", help="try the script on a CPU, without torch.compile"
    )
    parser.add_argument("--only-part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    given.out = given.out.resolve()
    unknown = set(given.parts.split(",")) - PARTS.keys()
    if unknown:
        parser.error(f"--parts: unknown {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not given.tiny and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --tiny tries the script on a CPU")
    return given


def ended_within(command: list[str], seconds: float) -> str:
    """Run a command and all that it starts for so long at most; return how it ended, in words."""
    running = subprocess.Popen(command, start_new_session=True)
    try:
        status = running.wait(seconds)
    except subprocess.TimeoutExpired:
        # `nlbench run` writes checkpoints, and the processes of DataLoaders end with their parent.
        os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(SPARE)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        return "ended, because the time is over"
    return "done" if status == 0 else f"FAILED with exit status {status}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure the parts that fit, and write the report."""
    given = options(arguments)
    if given.only_part:
        part = given.only_part
        kept = Kept(given.out, part)
        if part == "tests":
            run_tests(given, kept)
        elif part == "suite":
            run_suite(given, kept)
        else:
            measure_model(part, given, kept)
        return

    ends = time.monotonic() + given.seconds
    again = list(sys.argv[1:] if arguments is None else arguments)
    for part in given.parts.split(","):
        left = ends - time.monotonic()
        if Kept(given.out, part).values.get("done") or left < PARTS[part]:
            continue
        print(f"---- {part}, {left:.0f} s left", flush=True)
        command = [sys.executable, __file__, *again, "--only-part", part]
        # What a part has measured is kept, also if it is ended.
        print(f"---- {part}: {ended_within(command, left - SPARE)}", flush=True)
        print(f"---- {write_report(given)}", flush=True)


if __name__ == "__main__":
    main()
