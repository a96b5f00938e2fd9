"""The likely fix for errors of torch that typical mistakes cause."""

import re

import pytest
import torch
from sweeps import method_file, sweep
from torch import nn
from torch.nn import functional as F

from nlbench.contract.advice import fix_for
from nlbench.method import Batch, Task


def batch_of(rows=6):
    return Batch(torch.zeros(rows, 3), torch.arange(rows) % 4, torch.arange(rows), lambda i, k: i)


Z = torch.zeros(6, 4, requires_grad=True)
TASK = Task(8, 4, torch.arange(8) % 4, 2, 2, 4)


class NoSuper(nn.Module):
    def __init__(self):
        self.w = nn.Parameter(torch.ones(1))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("type", torch.ones(1))


# What an author wrote, and what the fix must say. The errors are torch's and Python's own.
MISTAKES = {
    "labels for the batch": (lambda: F.cross_entropy(Z, batch_of()), "batch.labels"),
    "arithmetic with the batch": (lambda: Z.argmax(1) == batch_of() * 1, "batch.labels"),
    "a batch in brackets": (lambda: batch_of()[:, None], "batch.labels"),
    "clean labels of a batch": (lambda: batch_of().clean_labels, "no method gets the true ones"),
    "another order": (lambda: F.cross_entropy(batch_of(), Z.labels), "passed by position"),
    "a task's clean labels": (lambda: TASK.clean_labels, "a task has num_train"),
    "labels as one-hot rows": (lambda: (Z * batch_of().labels).sum(), "F.one_hot"),
    "labels of another dtype": (
        lambda: F.cross_entropy(Z, batch_of().labels.float()),
        "int64",
    ),
    "positions of another dtype": (lambda: Z[torch.zeros(6)], "int64"),
    "a memory of classes, indexed by examples": (
        lambda: torch.zeros(4)[torch.arange(6)],
        "num_train rows",
    ),
    "a label beyond the classes": (
        lambda: F.cross_entropy(Z, torch.full((6,), 4)),
        "num_classes - 1",
    ),
    "two dtypes": (lambda: Z @ torch.zeros(4, 4).double(), "logits are float32"),
    "numpy of a graph": (lambda: Z.sum(1).numpy(), r"\.detach\(\)\.cpu\(\)\.numpy\(\)"),
    "a question to many values": (lambda: 1 if Z.sum(1) > 0 else 2, r"torch\.where"),
    "no super": (NoSuper, r"super\(\)\.__init__\(task\)"),
    "a name of torch's": (Named, "another name"),
    "a parameter changed in place": (
        lambda: nn.Parameter(torch.ones(2)).mul_(2),
        r"torch\.no_grad\(\)",
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_the_error_of_a_typical_mistake_has_its_fix(kind):
    mistake, says = MISTAKES[kind]
    with pytest.raises(Exception) as caught:  # noqa: PT011
        mistake()
    error = caught.value
    fix = fix_for(f"{type(error).__name__}: {error}")
    assert re.search(says, fix), (str(error), fix)


def test_an_unknown_error_has_no_fix():
    assert fix_for("ValueError: q must be in (0, 1]") == ""
    # None of another function is not that of run.validate.
    assert "validation part" not in fix_for("TypeError: 'NoneType' object", "x = self.weights()")
    assert "validation part" in fix_for("TypeError: ... 'NoneType'", "if run.validate(net) > 0.5:")


def test_a_failed_run_says_where_and_what_to_do(tmp_path):
    body = """
        class M(Method):
            def loss(self, logits, labels):
                return F.cross_entropy(logits, labels)
        """
    folder = method_file(tmp_path / "m", "mine", body)
    sw = sweep(tmp_path / "out", {"mine": {}}, methods_dir=folder, epochs=1, subset=200)
    sw.run()
    first = sw.failures()[0].error_message.partition("\n")[0]
    assert re.search(
        r"TypeError: .*\(mine\.py:\d+: return F\.cross_entropy\(logits, labels\)\)", first
    )
    assert "; fix: the hook gets the whole batch" in first
