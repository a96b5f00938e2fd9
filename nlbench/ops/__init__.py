"""Fused kernels: the losses of ELR, ELR+ and ALR with their per-example targets, and augmentation.

Each op checks its arguments, then runs the compiled kernel. Where no kernel fits, the pure-torch
reference runs instead; a warning says so once, and `backend` tells a record which code runs. These
functions are the only callers of the extension, which trusts its arguments.
"""

from nlbench.ops.alr import alr_loss, alr_step
from nlbench.ops.elr import elr_loss, elr_loss_soft, elr_step, elr_step_soft, update_targets
from nlbench.ops.extension import (
    backend,
    cpu_isa,
    cuda_architectures,
    source_hash,
    why_no_cuda,
    why_no_extension,
)
from nlbench.ops.faults import check_faults
from nlbench.ops.images import augment
from nlbench.ops.narrow import widened
from nlbench.ops.strong import strong_augment

__all__ = [
    "alr_loss",
    "alr_step",
    "augment",
    "backend",
    "check_faults",
    "cpu_isa",
    "cuda_architectures",
    "elr_loss",
    "elr_loss_soft",
    "elr_step",
    "elr_step_soft",
    "source_hash",
    "strong_augment",
    "update_targets",
    "why_no_cuda",
    "why_no_extension",
    "widened",
]
