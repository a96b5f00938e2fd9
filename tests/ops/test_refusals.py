"""What the losses refuse. A message names the op and the argument, and nothing has been written."""

import pytest
import torch
from forms import BETA, LAM
from hypothesis import given as draw
from hypothesis import strategies as st

from nlbench import ops


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": [[0.0]]}, TypeError, "logits must be a tensor, got list"),
        (
            {"logits": torch.zeros(4, 3, dtype=torch.int64)},
            TypeError,
            "logits must be float32 or float64 or bfloat16 or float16 of shape [B, C], "
            "got int64 of shape [4, 3]",
        ),
        ({"logits": torch.zeros(12)}, ValueError, "of shape [B, C], got float32 of shape [12]"),
        (
            {"labels": torch.zeros(4, dtype=torch.int32)},
            TypeError,
            "labels must be int64 of shape [4], got int32 of shape [4]",
        ),
        (
            {"labels": torch.zeros(4, 1, dtype=torch.int64)},
            ValueError,
            "labels must be int64 of shape [4], got int64 of shape [4, 1]",
        ),
        (
            {"index": torch.zeros(4)},
            TypeError,
            "index must be int64 of shape [4], got float32 of shape [4]",
        ),
        (
            {"index": torch.arange(3)},
            ValueError,
            "index must be int64 of shape [4], got int64 of shape [3]",
        ),
        (
            {"targets": torch.zeros(6, 3, dtype=torch.float16)},
            TypeError,
            "targets must be float32 or float64 of shape [N, 3], got float16 of shape [6, 3]",
        ),
        (
            {"targets": torch.zeros(6, 4)},
            ValueError,
            "targets must be float32 or float64 of shape [N, 3], got float32 of shape [6, 4]",
        ),
        (
            {"targets": torch.zeros(3, 6).t()},
            ValueError,
            "targets must be contiguous (it is updated in place, and a copy would take the "
            "update), got strides [1, 6]",
        ),
        (
            {"targets": torch.zeros(6, 3, requires_grad=True)},
            ValueError,
            "targets must not require a gradient",
        ),
        (
            {"targets": torch.zeros(6, 3, device="meta")},
            ValueError,
            "targets must be on cpu as logits is, got meta",
        ),
        (
            {"labels": torch.zeros(4, dtype=torch.int64, device="meta")},
            ValueError,
            "labels must be on cpu as logits",
        ),
        ({"beta": 1}, ValueError, "beta must be in [0, 1), got 1"),
        ({"beta": -0.1}, ValueError, "beta must be in [0, 1), got -0.1"),
        ({"beta": float("nan")}, ValueError, "beta must be in [0, 1), got nan"),
        ({"beta": "0.7"}, TypeError, "beta must be a number, got str"),
        ({"lam": -1.0}, ValueError, "lam must be finite and >= 0, got -1.0"),
        ({"lam": float("inf")}, ValueError, "lam must be finite and >= 0, got inf"),
        ({"lam": None}, TypeError, "lam must be a number, got NoneType"),
        ({"reduction": "max"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'max'"),
        (
            {"labels": torch.tensor([0, 3, 1, 1])},
            IndexError,
            "labels must be in [0, 3), got 3 at position 1",
        ),
        (
            {"labels": torch.tensor([0, 1, 1, -1])},
            IndexError,
            "labels must be in [0, 3), got -1 at position 3",
        ),
        (
            {"index": torch.tensor([0, 1, 6, 2])},
            IndexError,
            "index must be in [0, 6), got 6 at position 2",
        ),
        (
            {"index": torch.tensor([-1, 1, 2, 3])},
            IndexError,
            "index must be in [0, 6), got -1 at position 0",
        ),
        (
            {"index": torch.tensor([4, 1, 2, 4])},
            IndexError,
            "index must not repeat within a batch, got 4 again at position 3",
        ),
    ],
)
def test_elr_refuses(backend, change, error, message):
    given = {
        "logits": torch.zeros(4, 3),
        "labels": torch.tensor([0, 1, 2, 0]),
        "index": torch.tensor([3, 1, 0, 5]),
        "targets": torch.full((6, 3), 0.25),
        "beta": BETA,
        "lam": LAM,
        **change,
    }
    targets = given["targets"]
    tensors = [given.pop(name) for name in ("logits", "labels", "index", "targets")]

    with pytest.raises(error) as caught:
        ops.elr_loss(*tensors, **given)
    assert str(caught.value).startswith("elr_loss: ")
    assert message in str(caught.value)

    if "targets" not in change:
        assert (targets == 0.25).all()  # nothing is written before everything is checked


def test_elr_step_names_itself(backend):
    with pytest.raises(ValueError, match=r"^elr_step: beta must be in \[0, 1\), got 2$"):
        ops.elr_step(
            torch.zeros(1, 2),
            torch.tensor([0]),
            torch.tensor([0]),
            torch.zeros(1, 2),
            beta=2,
            lam=1,
        )

    with pytest.raises(
        IndexError, match=r"^elr_step: labels must be in \[0, 2\), got 2 at position 0$"
    ):
        ops.elr_step(
            torch.zeros(1, 2),
            torch.tensor([2]),
            torch.tensor([0]),
            torch.zeros(1, 2),
            beta=0.5,
            lam=1,
        )


@draw(values=st.lists(st.integers(0, 60), max_size=80))
def test_elr_finds_every_repeated_index(values):
    B = len(values)
    labels, index = torch.zeros(B, dtype=torch.int64), torch.tensor(values, dtype=torch.int64)
    repeats = [b for b in range(B) if values[b] in values[:b]]
    logits, targets = torch.zeros(B, 2), torch.zeros(61, 2)
    if not repeats:
        ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
        return

    with pytest.raises(
        IndexError, match=f"got {values[repeats[0]]} again at position {repeats[0]}$"
    ):
        ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)


SOFT = {
    "logits": torch.zeros(4, 3),
    "soft_labels": torch.zeros(4, 3),
    "mixed_targets": torch.zeros(4, 3),
    "lam": LAM,
}
MEMORY = {
    "logits": torch.zeros(4, 3),
    "index": torch.tensor([3, 1, 0, 5]),
    "targets": torch.full((6, 3), 0.25),
}
ALR = MEMORY | {"alpha": 0.9, "lam_e": 0.1}
UPDATE = MEMORY | {"beta": 0.7, "clamp": True}


@pytest.mark.parametrize(
    ("op", "given", "change", "error", "message"),
    [
        (
            "elr_loss_soft",
            SOFT,
            {"soft_labels": torch.zeros(4, 2)},
            ValueError,
            "soft_labels must be float32 or float64 of shape [4, 3], got float32 of shape [4, 2]",
        ),
        (
            "elr_loss_soft",
            SOFT,
            {"soft_labels": torch.zeros(4, dtype=torch.int64)},
            TypeError,
            "soft_labels must be float32 or float64 of shape [4, 3], got int64 of shape [4]",
        ),
        (
            "elr_loss_soft",
            SOFT,
            {"mixed_targets": torch.zeros(4, 3, dtype=torch.float64)},
            TypeError,
            "mixed_targets must be float32 of shape [4, 3], got float64 of shape [4, 3]",
        ),
        (
            "elr_loss_soft",
            SOFT,
            {"mixed_targets": torch.zeros(4, 3, device="meta")},
            ValueError,
            "mixed_targets must be on cpu as logits is, got meta",
        ),
        (
            "elr_loss_soft",
            SOFT,
            {"soft_labels": torch.zeros(4, 3, requires_grad=True)},
            ValueError,
            "soft_labels must not require a gradient",
        ),
        ("elr_loss_soft", SOFT, {"lam": -1.0}, ValueError, "lam must be finite and >= 0, got -1.0"),
        (
            "elr_loss_soft",
            SOFT,
            {"reduction": "max"},
            ValueError,
            "reduction must be 'mean', 'sum' or 'none'",
        ),
        ("alr_loss", ALR, {"alpha": 1.1}, ValueError, "alpha must be in [0, 1], got 1.1"),
        (
            "alr_loss",
            ALR,
            {"lam_e": float("nan")},
            ValueError,
            "lam_e must be finite and >= 0, got nan",
        ),
        (
            "alr_loss",
            ALR,
            {"index": torch.tensor([0, 1, 6, 2])},
            IndexError,
            "index must be in [0, 6), got 6 at position 2",
        ),
        (
            "alr_step",
            ALR,
            {"index": torch.tensor([4, 1, 2, 4])},
            IndexError,
            "index must not repeat within a batch, got 4 again at position 3",
        ),
        (
            "alr_loss",
            ALR,
            {"targets": torch.zeros(3, 6).t()},
            ValueError,
            "targets must be contiguous",
        ),
        ("update_targets", UPDATE, {"beta": 1.0}, ValueError, "beta must be in [0, 1), got 1.0"),
        ("update_targets", UPDATE, {"clamp": 1}, TypeError, "clamp must be a bool, got int"),
        (
            "update_targets",
            UPDATE,
            {"index": torch.tensor([-1, 1, 2, 3])},
            IndexError,
            "index must be in [0, 6), got -1 at position 0",
        ),
    ],
)
def test_ops_refuse(backend, op, given, change, error, message):
    with pytest.raises(error) as caught:
        getattr(ops, op)(**(given | change))
    assert str(caught.value).startswith(f"{op}: ")
    assert message in str(caught.value)
    assert (MEMORY["targets"] == 0.25).all()  # nothing is written before everything is checked


def test_no_class_at_all_is_refused():
    """An empty row has no softmax; the kernels would leave its loss unwritten."""
    labels, index = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    for step in (
        lambda z, t: ops.elr_step(z, labels, index, t, beta=0.7, lam=3.0),
        lambda z, t: ops.elr_step_soft(z, t[:3], t[:3], lam=3.0),
        lambda z, t: ops.alr_step(z, index, t, alpha=0.9, lam_e=0.1),
        lambda z, t: ops.update_targets(z, index, t, beta=0.7, clamp=True),
    ):
        with pytest.raises(ValueError, match="logits must have at least one class"):
            step(torch.empty(3, 0), torch.empty(6, 0))
