"""What `nlbench doctor` says."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from nlbench import hardware, ops, registry
from nlbench.data import catalogue
from nlbench.data.places import Places
from nlbench.errors import SuiteError
from nlbench.hardware import processor

_PACKAGES = ("nlbench", "torch", "torchvision", "numpy", "pandas", "scikit-learn", "timm")


def report(data_dir: Path | None, methods_dir: Path | None) -> tuple[list[str], bool]:
    """The lines, and whether everything that is installed works."""
    lines = [f"python {platform.python_version()} on {platform.platform(terse=True)}"]
    lines.append(", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    cpu, gpus = torch.device("cpu"), [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    lines.append(
        f"processor: {processor()}, {hardware.cores()} cores, torch uses {torch.get_num_threads()} threads; "
        f"precision auto is {hardware.precision([cpu])}"
    )
    if torch.cuda.is_available():
        lines += [
            f"GPU {gpu.index}: {torch.cuda.get_device_name(gpu)}; precision auto is {hardware.precision([gpu])}"
            for gpu in gpus
        ]
    else:
        lines.append("GPU: none that torch can use")
    why = ops.why_no_extension()
    built = f"compiled for {ops.cpu_isa()} on the CPU, sources {ops.source_hash()[:16]}"
    lines.append(f"kernels: {why or built}")
    no_cuda = "" if why else ops.why_no_cuda()
    lines.append(f"kernels for CUDA: {no_cuda or why or f'compiled for {ops.cuda_architectures()}'}")
    lines.append(f"kernels on cpu: {ops.backend(torch.device('cpu'))}; on cuda: {ops.backend(torch.device('cuda'))}")
    places = Places.of_user(data_dir)
    lines.append(f"data directory: {places.data_dir}{'' if places.data_dir.is_dir() else ' (not there)'}")
    lines.append(f"cache: {places.cache_dir}")
    for name in catalogue.dataset_files():
        lines.append(f"  {name}: {catalogue.in_short(name, places.data_dir)}")
    broken = []
    files = registry.method_files([methods_dir] if methods_dir else [])
    for file in files.values():
        try:
            registry.hyperparameters(registry.load_method(file))
        except SuiteError as error:
            broken.append(str(error))
    lines.append(f"methods: {len(files) - len(broken)} of {len(files)} can be used")
    return lines + broken, not broken and not why


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
