"""The fixture of all tests of ops: both kinds of code."""

import pytest
import torch

from nlbench import ops
from nlbench.ops import extension, images, losses, strong


@pytest.fixture(params=["compiled", "torch"])
def backend(request, monkeypatch):
    """Run a test with the compiled kernels, and again with the torch reference in their place."""
    if request.param == "compiled" and ops.why_no_extension():
        pytest.skip(ops.why_no_extension())
    if request.param == "torch":
        monkeypatch.setattr(losses, "core", None)
        monkeypatch.setattr(images, "core", None)
        monkeypatch.setattr(strong, "core", None)
        monkeypatch.setattr(extension, "_warned", {extension._why_torch(torch.device("cpu"))})
    return request.param
