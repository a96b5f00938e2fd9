"""Record."""

from __future__ import annotations

import platform
import traceback
from importlib.metadata import version
from typing import Any

import torch

from nlbench import code_hash as code
from nlbench import models, ops
from nlbench.data.noise import kinds as noises
from nlbench.hardware import processor
from nlbench.method import Method
from nlbench.plan.protocol import Protocol
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord
from nlbench.training import evaluate
from nlbench.training.context import Context
from nlbench.training.run_data import RunData
from nlbench.training.run_state import RunState
from nlbench.training.setup import uses_graphs


def make_record(
    spec: RunSpec,
    run: RunState,
    method: Method,
    data: RunData,
    code_hash: str,
    history: list[dict[str, Any]],
    seconds: dict[str, float],
    context: Context,
    protocol: Protocol,
    diverged: evaluate.Diverged | None = None,
) -> RunRecord:
    error = None
    if diverged is not None:
        error = {"message": str(diverged), "epoch": diverged.epoch, "step": diverged.step}
    return RunRecord(
        key=spec.key,
        status="done" if diverged is None else "diverged",
        spec=spec.identity(),
        metrics=_metrics(history) if diverged is None else {},
        noise=noise_facts(spec, data),
        timing=dict(seconds),
        environment={
            **environment(context, protocol),
            "weights": models.weights_file(protocol.model, protocol.weights),
        },
        method={
            "told": list(method.told),
            "networks": len(run.networks),
            "own_optimisers": sorted(run.replaced),
        },
        code=code_hash,
        warnings=list(data.warnings),
        error=error,
    )


def _metrics(history: list[dict[str, Any]]) -> dict[str, Any]:
    last = {k: v for k, v in history[-1].items() if k.startswith("online_") or k == "target_accuracy"}
    return {**evaluate.summarise(history), **last}


def failed(spec: RunSpec, error: BaseException, context: Context) -> RunRecord:
    """The record of a run that raised."""
    return RunRecord(
        key=spec.key,
        status="failed",
        spec=spec.identity(),
        metrics={},
        noise={},
        timing={},
        environment=environment(context, spec.protocol),
        method={},
        code=code.code_hash(
            context.methods[spec.method].path, spec.protocol.model, spec.condition.dataset
        ),
        error={
            "message": f"{type(error).__name__}: {error}",
            "traceback": "".join(traceback.format_exception(error)) if error.__traceback__ else "",
        },
    )


def noise_facts(spec: RunSpec, data: RunData) -> dict[str, Any]:
    """What was asked of the labels and what they are, as measured."""
    noise = spec.condition.noise
    return {
        "asked_rate": (noise or {}).get("rate"),
        "redrawn": noise is not None and noises.KINDS[noise["kind"]].redrawn,
        "noise_rate_full": data.noise_rate_full,
        "noise_rate_train": data.noise_rate_train,
        "noise_rate_val": data.noise_rate_val,
        "labels_hash": data.labels_hash,
        # What a method that asks for the rate is told where nobody can measure it.
        "estimated_rate": data.info.estimated_noise_rate if data.noise_rate_train is None else None,
        "num_train": len(data.labels),
        "num_val": 0 if data.val_labels is None else len(data.val_labels),
        "num_test": len(data.test_labels),
        "variant": data.variant,
        "checksums": data.checksums,
    }


def environment(context: Context, protocol: Protocol) -> dict[str, Any]:
    """Versions, hardware and the code that ran."""
    device = context.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "nlbench": version("nlbench"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(terse=True),
        "device": device.type,
        "device_name": name,
        "threads": protocol.threads,
        "precision": protocol.precision,
        "compile": protocol.compile,
        "cuda_graphs": uses_graphs(context, protocol),
        "jobs": context.jobs,
        "ops": ops.backend(device),
    }
