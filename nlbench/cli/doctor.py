"""The command `doctor`: what is installed here, and does it work?"""

from __future__ import annotations

import functools
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nlbench import child
from nlbench.cli.app import DataDir, MethodsDir, app, examples, guarded, say

if TYPE_CHECKING:
    from nlbench.registry import MethodFile

PACKAGES = ("nlbench", "torch", "torchvision", "numpy", "pandas", "scikit-learn", "timm")


@app.command(epilog=examples("nlbench doctor", "nlbench doctor --methods-dir my_methods"))
@guarded
def doctor(data_dir: DataDir = None, methods_dir: MethodsDir = None) -> None:
    """Report versions, hardware, kernels, data and broken methods.

    Exit status: 0 everything works; 1 the kernels or a method cannot be used.
    """
    lines, healthy = report(data_dir, methods_dir)
    say(*lines)
    if not healthy:
        raise typer.Exit(1)


def report(data_dir: Path | None, methods_dir: Path | None) -> tuple[list[str], bool]:
    """Return the lines that `doctor` prints, and whether everything that is installed works."""
    from nlbench import ops

    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    methods, broken = _methods(methods_dir)
    lines = [
        f"python {platform.python_version()} on {platform.platform(terse=True)}",
        versions,
        *_hardware(),
        *_kernels(),
        *_data(data_dir),
        methods,
        *broken,
    ]
    # Data or a GPU that is not there is no fault of the installation.
    return lines, not broken and not ops.why_no_extension()


def _hardware() -> list[str]:
    import torch

    from nlbench import hardware

    cpu = torch.device("cpu")
    lines = [
        f"processor: {hardware.device_name(cpu)}, {hardware.cores()} cores, "
        f"torch uses {torch.get_num_threads()} threads; "
        f"precision auto is {hardware.precision([cpu])}"
    ]
    if not torch.cuda.is_available():
        return [*lines, "GPU: none that torch can use"]

    for i in range(torch.cuda.device_count()):
        gpu = torch.device("cuda", i)
        name = hardware.device_name(gpu)
        lines.append(f"GPU {i}: {name}; precision auto is {hardware.precision([gpu])}")
    return lines


def _kernels() -> list[str]:
    import torch

    from nlbench import ops

    why = ops.why_no_extension()
    on_cpu = why or f"compiled for {ops.cpu_isa()} on the CPU, sources {ops.source_hash()[:16]}"
    # Without the extension nothing can be said about CUDA kernels, which it opens.
    on_gpu = why or ops.why_no_cuda() or f"compiled for {ops.cuda_architectures()}"
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    return [
        f"kernels: {on_cpu}",
        f"kernels for CUDA: {on_gpu}",
        f"kernels on cpu: {ops.backend(cpu)}; on cuda: {ops.backend(cuda)}",
    ]


def _data(data_dir: Path | None) -> list[str]:
    from nlbench.data import catalogue
    from nlbench.data.places import Places

    places = Places.of_user(data_dir)
    missing = "" if places.data_dir.is_dir() else " (not there)"
    lines = [f"data directory: {places.data_dir}{missing}", f"cache: {places.cache_dir}"]
    for name in catalogue.dataset_files():
        lines.append(f"  {name}: {catalogue.in_short(name, places.data_dir)}")
    return lines


def _methods(methods_dir: Path | None) -> tuple[str, list[str]]:
    """Return a line about all methods, and the errors of those that cannot be used."""
    from nlbench import registry

    files = registry.method_files([methods_dir] if methods_dir else [])
    broken = []
    for file in files.values():
        # One broken file must not hide the others, whatever it does.
        try:
            problem = child.run_apart(functools.partial(_problem_of, file), about=str(file.path))
        except child.ChildEnded as error:
            problem = f"{file.path}: {error}, when it is loaded"
        if problem:
            broken.append(problem)
    return f"methods: {len(files) - len(broken)} of {len(files)} can be used", broken


def _problem_of(file: MethodFile) -> str:
    """Return why a method's file cannot be used, or nothing."""
    from nlbench import registry
    from nlbench.errors import SuiteError

    try:
        cls = registry.load_method(file)
        registry.refuse_wrong_hooks(cls, file.path)
        registry.hyperparameters(cls)
    except registry.NotImportable as error:
        return error.in_short
    except SuiteError as error:
        return str(error)
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
