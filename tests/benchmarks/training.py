"""Compare a method's training by nlbench with the loop that a user would write for ELR.

    python tests/benchmarks/training.py --model resnet8 --data-dir DIR \\
        [--method disc] [--precision bfloat16] [--images 5120]

"Ours" is a run as `nlbench run` trains it, of which only the training epochs are timed. "Theirs" is
`straightforward.Loop` in another process, which trains ELR whichever method is ours. Both have the
same model, images, given labels and batch size, and train an epoch in turn. Without --data-dir the
pictures are random, which costs the same. The report has images per second, their ratio, and the
parts of our time. A method with phases is in those of the first epochs of a training of
--rounds + 2 epochs; `every_method.py` measures each phase, beside cross entropy.
"""

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from parts import FREE, PARTS, Clock, Waits, flops_per_image, matrix_peak
from straightforward import Apart, Epoch, Setting

from nlbench import hardware, registry
from nlbench.data import catalogue
from nlbench.data.base import Dataset
from nlbench.data.datasets import cifar10
from nlbench.data.noise import resolve
from nlbench.data.places import Places
from nlbench.executors import base
from nlbench.plan import protocol as protocols
from nlbench.plan.protocol import Protocol
from nlbench.plan.spec import STRONG_VIEWS, Condition, RunSpec
from nlbench.results.store import Store
from nlbench.training import run_data
from nlbench.training.context import EpochMetrics, Listener, RunOptions
from nlbench.training.run_data import RunData
from nlbench.training.train import train

NOISE = {"kind": "symmetric", "rate": 0.4}
# The first epochs of both, which are not measured.
WARM_UP = 1
# Evaluation is not timed, so a few test images are enough.
SCORED = 64


@dataclass
class Measured:
    """Hold the measurements of all rounds.

    Attributes:
        ours, theirs: images/s, a value a round.
        losses: mean losses of the last round, ours and theirs.
        seconds: the seconds of our epochs, by part.
        epochs: the seconds of our epochs, as nlbench records them.
        steps: the number of steps in these epochs.
        waits: the profile of an epoch after them.
    """

    ours: list[float]
    theirs: list[float]
    losses: tuple[float, float]
    seconds: dict[str, float]
    epochs: float
    steps: int
    waits: Waits

    @property
    def ratios(self) -> list[float]:
        """Return our speed divided by theirs, a value a round."""
        return [our / their for our, their in zip(self.ours, self.theirs, strict=True)]

    @property
    def shares(self) -> dict[str, float]:
        """Return the shares of a step, by part. They sum to 1."""
        whole = sum(self.seconds.values())
        return {part: spent / whole for part, spent in self.seconds.items()}


def read(data_dir: Path | None, count: int) -> Dataset:
    """Return CIFAR-10, or `count` random pictures and some to score in its form."""
    if data_dir is not None:
        return catalogue.open_dataset("cifar10", "", Places.of_user(data_dir), 0)

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count + SCORED, 32, 32, 3), np.uint8)
    labels = np.arange(count + SCORED) % cifar10.INFO.num_classes
    sizes = {"num_train": count, "num_test": SCORED}
    info = dataclasses.replace(cifar10.INFO, title="random pictures", **sizes)
    return Dataset(
        info,
        images[:count],
        images[count:].copy(),
        labels[count:],
        {"clean": labels[:count]},
        fingerprint="random",
    )


def prepared(
    dataset: Dataset,
    protocol: Protocol,
    method: str = "elr",
    params: Mapping[str, object] | None = None,
    *,
    row: str = "",
) -> tuple[RunSpec, RunData]:
    """Return the run of a method under `protocol`, and its data with few images to score.

    Args:
        params: hyperparameters that differ from the method's defaults.
        row: its name in tables; the default is the method's.
    """
    resolved = resolve.resolve(NOISE, dataset.info, Path())
    data = run_data.prepare(dataset, seed=0, noise=resolved, subset=protocol.subset)
    few = np.arange(min(SCORED, data.num_test))
    data = dataclasses.replace(
        data, test_images=data.test_images[few], test_labels=data.test_labels[few]
    )

    spec = RunSpec(
        row=row or method,
        method=method,
        params=dict(params or {}),
        condition=Condition(dataset.info.name, "clean", resolved),
        fingerprint=dataset.fingerprint,
        protocol=protocol,
        seed=0,
        # Whether or not the method uses them: only a key depends on it.
        strong_views=STRONG_VIEWS,
    )
    return spec, data


def measure(
    spec: RunSpec,
    data: RunData,
    device: torch.device,
    *,
    rounds: int,
    workers: int,
    graphs: bool | None = None,
) -> Measured:
    """Train for WARM_UP + `rounds` epochs, and the straightforward loop for one after each.

    The run's protocol must have one epoch more, in which steps are profiled.
    """
    protocol = spec.protocol
    clock, waits = Clock(device), Waits(device)
    result = Measured([], [], (0.0, 0.0), dict.fromkeys(PARTS, 0.0), 0.0, 0, waits)

    def on_epoch(spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        seconds = clock.take()
        if epoch == WARM_UP + rounds:
            waits.stop()
            return

        # Both loops are measured within the same minutes, so that other load slows both.
        theirs = loop.epoch()
        if epoch >= WARM_UP:
            add(metrics, seconds, theirs)
        # The profiler slows steps, so it watches an epoch that is not measured.
        if epoch == WARM_UP + rounds - 1:
            waits.start()

    def add(metrics: EpochMetrics, seconds: dict[str, float], theirs: Epoch) -> None:
        result.ours.append(metrics["images_per_second"])
        result.theirs.append(theirs.images_per_second)
        result.losses = metrics["loss"], theirs.loss
        for part, spent in seconds.items():
            result.seconds[part] += spent
        result.epochs += metrics["seconds"]
        result.steps += -(-data.num_train // protocol.batch_size)

    setting = Setting(data.train_images, data.labels, data.info, protocol, device, workers)
    with tempfile.TemporaryDirectory() as out, Apart(setting) as loop, clock.running():
        store = Store(out)
        store.require_writable()
        options = RunOptions(
            devices=(device,),
            data_dir=Path(out),
            methods=registry.method_files([]),
            # Writing checkpoints is not part of an epoch.
            checkpoint_seconds=float("inf"),
            cuda_graphs=graphs,
        )
        listener = Listener()
        listener.on_epoch = on_epoch  # type: ignore[method-assign]
        record = train(spec, data, options, store, listener)

    if record.status != "done":
        raise RuntimeError(f"the run of {spec.method} is {record.status}: {record.error}")
    return result


def report(spec: RunSpec, data: RunData, device: torch.device, measured: Measured) -> Iterator[str]:
    """Yield the lines of the report in Markdown."""
    protocol = spec.protocol
    yield f"### {protocol.model}, {protocol.precision}"
    yield ""

    images = f"{data.num_train} images of {data.info.title}"
    if data.variant:
        images += f" ({data.variant})"
    yield (
        f"{machine(protocol, device)}. Method {spec.method}, {images}, batch {protocol.batch_size}."
    )
    yield ""

    yield from _speeds(protocol.precision, measured)
    yield ""
    yield from _parts(measured)
    yield ""

    others = 1 - sum(measured.shares[part] for part in FREE)
    yield f"Everything but forward, backward and optimiser: {others:.1%} of a step."
    ours, theirs = measured.losses
    yield f"Mean loss of the last round: ours {ours:.3f}, theirs {theirs:.3f}."
    yield _waited(measured.waits, device)
    yield _peak(protocol, data, device, statistics.median(measured.ours))


def machine(protocol: Protocol, device: torch.device) -> str:
    """Return the processor (and the GPU), threads and torch's version in words."""
    processor, cores = hardware.processor(), hardware.cores()
    found = f"{processor}, {cores} cores, {protocol.threads} threads, torch {torch.__version__}"
    if device.type == "cuda":
        found = f"{torch.cuda.get_device_name(device)}; {found}"
    return found


def _speeds(precision: str, measured: Measured) -> Iterator[str]:
    """Yield a table of images per second."""
    yield "| loop | images/s, median | range |"
    yield "| --- | ---: | ---: |"
    for name, values, form in (
        (f"nlbench, {precision}", measured.ours, ".1f"),
        ("straightforward ELR, float32", measured.theirs, ".1f"),
        ("ratio, round by round", measured.ratios, ".2f"),
    ):
        median = f"{statistics.median(values):{form}}"
        yield f"| {name} | {median} | {min(values):{form}} to {max(values):{form}} |"


def _parts(measured: Measured) -> Iterator[str]:
    """Yield a table of the parts of our epochs."""
    yield "| part of ours | of a step | ms a step |"
    yield "| --- | ---: | ---: |"
    for part, share in measured.shares.items():
        milliseconds = 1000 * measured.seconds[part] / measured.steps
        yield f"| {part} | {share:.2%} | {milliseconds:.3f} |"


def _waited(waits: Waits, device: torch.device) -> str:
    """Return how often a step makes the host wait, in words."""
    if not waits.steps:
        return "No step was profiled, because an epoch needs two steps for that."

    line = f"Numbers that the host read from tensors: {waits.reads / waits.steps:.2f} a step"
    if device.type == "cuda":
        line += f"; waits for the GPU: {waits.synchronisations / waits.steps:.2f} a step"
    return f"{line} ({waits.steps} steps profiled)."


def _peak(protocol: Protocol, data: RunData, device: torch.device, images_per_second: float) -> str:
    """Return our share of the operations per second of torch.mm, in words."""
    side, other, channels = data.info.shape
    flops = flops_per_image(protocol.model, data.info.num_classes, (channels, side, other))

    # The matrices are multiplied by as many threads as the training has.
    before = torch.get_num_threads()
    torch.set_num_threads(protocol.threads)
    peak = matrix_peak(device, getattr(torch, protocol.precision))
    torch.set_num_threads(before)

    reached = flops * images_per_second
    return (
        f"{flops / 1e9:.2f} GFLOP an image, {reached / 1e12:.3f} TFLOP/s: {reached / peak:.0%} of "
        f"what torch.mm reaches in {protocol.precision} ({peak / 1e12:.3f} TFLOP/s)."
    )


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="elr", help="with the defaults of its hyperparameters")
    parser.add_argument("--model", default="resnet8")
    parser.add_argument(
        "--data-dir", type=Path, help="the folder of CIFAR-10; without it, random pictures"
    )
    parser.add_argument("--precision", choices=["float32", "bfloat16", "auto"], default="float32")
    parser.add_argument("--images", type=int, default=5120, help="images an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--workers", type=int, default=2, help="workers of the straightforward loop's DataLoader"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--compile", action="store_true", help="pass our training step through torch.compile"
    )
    parser.add_argument(
        "--cuda-graphs",
        action=argparse.BooleanOptionalAction,
        help="replay our training step as CUDA graphs; the default is that of `nlbench run`",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, and print the report."""
    given = options(arguments)
    device = base.pick_devices(given.device)[0]
    precision = given.precision
    if precision == "auto":
        precision = hardware.precision([device])
    if precision == "bfloat16" and not hardware.has_bfloat16(device):
        print("This hardware has no bfloat16 instructions. Emulation is slower than float32.\n")

    dataset = read(given.data_dir, given.images)
    # 0 stands for all images.
    subset = 0 if given.images == dataset.info.num_train else given.images
    values = {
        "model": given.model,
        "epochs": WARM_UP + given.rounds + 1,
        "precision": precision,
        "compile": given.compile,
        "threads": given.threads,
        "subset": subset,
    }
    protocol = protocols.resolve("cifarn-02", "cifar10", values)
    spec, data = prepared(dataset, protocol, given.method)

    measured = measure(
        spec,
        data,
        device,
        rounds=given.rounds,
        workers=given.workers,
        graphs=given.cuda_graphs,
    )
    for line in report(spec, data, device, measured):
        print(line, flush=True)


if __name__ == "__main__":
    main()
