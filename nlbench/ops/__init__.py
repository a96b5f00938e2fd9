"""Fused kernels: the ELR loss with its per-example targets, and CIFAR-style augmentation.

Each op checks its arguments, then runs the compiled kernel, or the pure-torch reference where no kernel fits; that is
said once as a warning, and `backend` tells a record which code runs. These functions are the only callers of the
extension, which trusts what it is given.
"""

from nlbench.ops.elr import elr_loss, elr_step
from nlbench.ops.extension import backend, source_hash, why_no_extension
from nlbench.ops.images import augment

__all__ = ["augment", "backend", "elr_loss", "elr_step", "source_hash", "why_no_extension"]
