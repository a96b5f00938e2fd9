"""Which code runs the ops: the compiled kernels, the torch reference, or kernels on a GPU."""

import subprocess
import sys
import warnings

import pytest
import torch
from forms import BETA, LAM, make_given
from marks import needs_gpu

from nlbench import ops
from nlbench.ops import reference


@pytest.mark.skipif(bool(ops.why_no_extension()), reason="no extension")
def test_backend_names_the_code_that_runs():
    assert ops.backend("cpu") == ops.backend(torch.device("cpu")) == "cpp"
    assert ops.backend("cuda:0") == ("torch" if ops.why_no_cuda() else "cuda")
    assert bool(ops.cuda_architectures()) != bool(ops.why_no_cuda())
    assert ops.cpu_isa() in ("portable", "avx2", "avx512")
    assert ops.why_no_extension() == ""
    assert len(bytes.fromhex(ops.source_hash())) == 32


def test_without_the_extension_the_reference_runs_and_says_so_once():
    script = """
import sys, warnings
sys.modules["nlbench._core"] = None  # as if it had not been built
import torch
from nlbench import ops
assert (ops.backend("cpu"), ops.source_hash()) == ("torch", "")
assert "nlbench._core" in ops.why_no_extension()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        two = torch.tensor([0, 1])
        ops.elr_loss(torch.zeros(2, 3), two, two, torch.zeros(4, 3), beta=0.7, lam=3)
        images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
        ops.augment(images, torch.tensor([0]), None, mean=[0, 0, 0], std=[1, 1, 1])
[warning] = caught
assert ops.why_no_extension() in str(warning.message), warning
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr


@needs_gpu
def test_elr_on_a_gpu():
    """With kernels or, with a warning, by the reference."""
    given = make_given(128, 10, "late")
    arguments = (given.logits, given.labels, given.index, given.targets)
    on_gpu = [tensor.cuda() for tensor in arguments]
    want_losses, want_dlogits = reference.elr_step(*arguments, BETA, LAM, 1 / 128)
    with warnings.catch_warnings(record=True):
        losses, dlogits = ops.elr_step(*on_gpu, beta=BETA, lam=LAM)

    torch.testing.assert_close(losses.cpu(), want_losses)
    torch.testing.assert_close(dlogits.cpu(), want_dlogits)
    torch.testing.assert_close(on_gpu[3].cpu(), given.targets)
