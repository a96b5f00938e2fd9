"""The record of a run."""

from __future__ import annotations

import os
import platform
import traceback
from importlib.metadata import version
from pathlib import Path

import torch

from nlbench import code_hash, models, ops
from nlbench.contract import advice
from nlbench.data import describe
from nlbench.data.noise import kinds
from nlbench.errors import MethodError
from nlbench.hardware import device_name, processor
from nlbench.method import Method
from nlbench.plan.protocol import Protocol
from nlbench.plan.spec import RunSpec
from nlbench.results.record import (
    ClassFacts,
    Environment,
    MethodFacts,
    Metrics,
    NoiseFacts,
    RunError,
    RunRecord,
)
from nlbench.training import memory
from nlbench.training.checkpoint import Progress
from nlbench.training.context import RunOptions
from nlbench.training.evaluate import Diverged
from nlbench.training.run_data import RunData
from nlbench.training.run_state import RunState
from nlbench.training.setup import uses_graphs, uses_whole_steps

# Of the text of an error, and of its traceback, in a record.
_LONGEST_MESSAGE = 2_000
_LONGEST_TRACEBACK = 20_000


def code_of(spec: RunSpec, options: RunOptions) -> str:
    """Return the hash of the code that the run's numbers depend on."""
    method_file = options.methods[spec.method].path
    return code_hash.code_hash(method_file, spec.protocol.model, spec.condition.dataset)


def ended(
    spec: RunSpec,
    data: RunData,
    options: RunOptions,
    progress: Progress,
    facts: MethodFacts,
    metrics: Metrics,
    error: Diverged | None = None,
    recall: list[float | None] | None = None,
) -> RunRecord:
    """Return the record of a run that was trained to its end, or until it diverged.

    Args:
        metrics: empty for a run that diverged.
        error: says where a run diverged.
        recall: of each class of the test images.
    """
    protocol = spec.protocol
    weights = spec.weights_name or models.weights_file(protocol.model, protocol.weights)
    diverged: RunError | None = None
    if error is not None:
        diverged = {"message": str(error), "epoch": error.epoch, "step": error.step}

    return RunRecord(
        key=spec.key,
        status="done" if diverged is None else "diverged",
        spec=spec.identity(),
        metrics=metrics,
        noise=noise_facts(spec, data),
        timing=progress.seconds,
        environment={**environment(options, protocol), "weights": weights},
        method=facts,
        code=progress.code,
        classes=class_facts(data, recall),
        warnings=progress.warnings,
        error=diverged,
    )


def failed(spec: RunSpec, error: BaseException, options: RunOptions) -> RunRecord:
    """Return the record of a run that raised `error`.

    An error that has an attribute `peak_memory`, in bytes, is of another process than this one.
    """
    path = options.methods[spec.method].path
    facts: RunError = {"message": message_of(error, path), "traceback": _traceback_of(error, path)}
    if peak := getattr(error, "peak_memory", 0):
        facts["peak_memory"] = peak
    elif memory.is_shortage(error):
        gpu_peak = memory.peak_gpu_bytes(options.device)
        facts["peak_memory"] = memory.peak_bytes()
        if gpu_peak:
            facts["peak_gpu_memory"] = gpu_peak
        facts["message"] += f"; {memory.advice(facts['peak_memory'], gpu_peak)}"
    return RunRecord(
        key=spec.key,
        status="failed",
        spec=spec.identity(),
        metrics={},
        noise={},
        timing={},
        environment=environment(options, spec.protocol),
        method={},
        code=code_of(spec, options),
        error=facts,
    )


def message_of(error: BaseException, path: Path) -> str:
    """Return the type and the text of an error, as text that can be written as UTF-8.

    The text of an endless message is cut, and that of an exception whose `str` raises says so.

    Args:
        path: the method's file.
    """
    # The code of an exception class may do anything, too.
    try:
        text = advice.explained(error, path)
    except BaseException as second:
        text = f"{type(error).__name__}: (its str() raises {type(second).__name__})"
    if isinstance(error, SystemExit):
        said = "SystemExit" if error.code is None else f"SystemExit: {error.code}"
        ended = f"SystemExit: the method ended the process with status {error.code or 0}"
        text = text.replace(said, ended, 1)
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    return _utf8(f"{text}{notes}", _LONGEST_MESSAGE)


def _traceback_of(error: BaseException, path: Path) -> str:
    # An error that was never raised, that of a dead process, has no traceback.
    if error.__traceback__ is None:
        return ""
    # It says what the method must do, so only the lines of the method's own file are of use.
    if isinstance(error, MethodError):
        return "".join(traceback.format_list(advice.own_frames(error, path)))
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:
        # The text of the exception cannot be made, and the places can.
        text = "".join(traceback.format_tb(error.__traceback__))
    return _utf8(text, _LONGEST_TRACEBACK)


def _utf8(text: str, most: int) -> str:
    """Return `text` as UTF-8 can hold it, without its middle if it is very long."""
    left_out = len(text) - most
    if left_out > 0:
        half = most // 2
        text = f"{text[:half]}\n... {left_out:,} characters left out ...\n{text[-half:]}"
    # Half surrogates are text in Python, and no UTF-8.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def method_facts(spec: RunSpec, method: Method, state: RunState) -> MethodFacts:
    """Return what the method was given and what it trains."""
    facts: MethodFacts = {
        "told": list(method.told),
        "networks": len(state.networks),
        "own_optimisers": sorted(state.replaced),
    }
    # A rate that was measured is in the facts about the labels.
    if "noise_rate" in spec.told:
        facts["told_noise_rate"] = float(method.task.noise_rate)
    return facts


def noise_facts(spec: RunSpec, data: RunData) -> NoiseFacts:
    """Return what the labels should be and, as measured, what they are."""
    noise = spec.condition.noise
    unknown = data.noise_rate_train is None
    facts: NoiseFacts = {
        "asked_rate": (noise or {}).get("rate"),
        "redrawn": noise is not None and kinds.KINDS[noise["kind"]].redrawn,
        "noise_rate_full": data.noise_rate_full,
        "noise_rate_train": data.noise_rate_train,
        "noise_rate_val": data.noise_rate_val,
        "labels_hash": data.labels_hash,
        # A method that declares the noise rate gets this estimate if nobody can measure the rate.
        "estimated_rate": data.info.estimated_noise_rate if unknown else None,
        "num_train": data.num_train,
        "num_val": data.num_val,
        "num_test": data.num_test,
        "variant": data.variant,
        "checksums": data.checksums,
    }
    # Where all true labels are known, the number is num_train.
    if 0 < data.num_known < data.num_train:
        facts["num_known"] = data.num_known
    return facts


def class_facts(data: RunData, recall: list[float | None] | None) -> ClassFacts:
    """Return the classes, the images of each and, of a run that is done, the recall of each."""
    count = data.info.num_classes
    facts: ClassFacts = {
        "num_classes": count,
        "names": list(data.info.class_names),
        "train": describe.class_counts(data.labels, count),
        "test": describe.class_counts(data.test_labels, count),
    }
    if recall is not None:
        facts["recall"] = recall
    if data.info.located_by == "suite":
        facts["data_warnings"] = list(data.warnings)
    return facts


def environment(options: RunOptions, protocol: Protocol) -> Environment:
    """Return versions, hardware and the code that runs."""
    device = options.device
    found: Environment = {
        "nlbench": version("nlbench"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(terse=True),
        "device": device.type,
        "device_name": device_name(device),
        "threads": protocol.threads,
        "precision": protocol.precision,
        "compile": protocol.compile,
        "cuda_graphs": uses_graphs(options, protocol),
        "whole_steps": uses_whole_steps(options, protocol),
        # Runs at the same time take longer, so seconds can only be compared with the same number.
        "jobs": options.jobs,
        "ops": ops.backend(device),
        **instructions(),
    }
    # The nodes of a cluster may differ, and one of them may be faulty. Elsewhere the name of the
    # machine is nobody's business.
    if node := os.environ.get("SLURMD_NODENAME"):
        found["node"] = node
    return found


def instructions() -> Environment:
    """Return the CPU's instructions that this process computes with.

    Other instructions round differently, so that a run ends with other numbers.
    """
    mkldnn = torch.backends.mkldnn
    return {
        "processor": processor(),
        "kernels": ops.cpu_isa(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": mkldnn.is_available() and bool(mkldnn.enabled),
    }
