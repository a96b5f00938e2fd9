"""Write method files for tests of `nlbench check`, from parts of a class as text."""

import re
import textwrap
from pathlib import Path

from nlbench.conformance import runner

# The first lines of each file. The imports serve all of the parts below.
HEAD = '''"""A test's method. Doe & Roe, NeurIPS 2018, arXiv:1805.07836."""
import copy, gc, random, sys, time
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from nlbench.method import Method, Task
'''


def function(head: str, *lines: str) -> str:
    """Return the text of a function with these lines."""
    return f"def {head}:\n" + "".join(f"    {line}\n" for line in lines)


def init(*lines: str, more: str = "") -> str:
    """Return a constructor with these lines, and `more` arguments."""
    return function(f"__init__(self, task: Task{more})", "super().__init__(task)", *lines)


def loss(*lines: str, value: str = "F.cross_entropy(logits, batch.labels)") -> str:
    """Return a loss that executes these lines and returns `value`."""
    return function("loss(self, logits, batch)", *lines, f"return {value}")


def step(*lines: str, value: str = "F.cross_entropy(logits, batch.labels)", names: str = "") -> str:
    """Return a training step that executes these lines and then minimises `value`."""
    return function(
        "training_step(self, run, batch)",
        *lines,
        "logits = run.networks[0](batch.images)",
        f"run.backward_step({value}, {names})",
        "return logits",
    )


def predict(*lines: str, value: str = "run.networks[0](images)") -> str:
    """Return a prediction that executes these lines and returns `value`."""
    return function("predict(self, run, images)", *lines, f"return {value}")


def write(folder: Path, body: str, head: str = HEAD, name: str = "mine") -> Path:
    """Write a method file to `folder`, and return its path."""
    path = folder / f"{name}.py"
    path.write_text(head + textwrap.dedent(body))
    return path


def members(*parts: str) -> str:
    """Return the text of a method `Mine` with these members."""
    text = "class Mine(Method):\n"
    for part in parts:
        text += textwrap.indent(textwrap.dedent(part), "    ")
    return text


CE = loss()
OWN_WEIGHTS = init("self.w = nn.Parameter(torch.zeros(task.num_classes))")

# A loss with targets, which `fast_form` computes without autograd.
FAST_INIT = init("self.register_buffer('targets', torch.zeros(task.num_train, task.num_classes))")
FAST_LOSS = loss(
    "p = logits.detach().softmax(1)",
    "self.targets[batch.index] = 0.7 * self.targets[batch.index] + 0.3 * p",
    "t = F.one_hot(batch.labels, logits.shape[1]) + self.targets[batch.index]",
    value="F.cross_entropy(logits, t)",
)


def fast_form(
    rows: str = "rows", grad: str = "dlogits / len(batch)", update: str = "0.3 * p"
) -> str:
    """Return a `loss_and_grad` that agrees with FAST_LOSS, unless an argument changes it."""
    return function(
        "loss_and_grad(self, logits, batch)",
        "p = logits.softmax(1)",
        f"self.targets[batch.index] = 0.7 * self.targets[batch.index] + {update}",
        "t = F.one_hot(batch.labels, logits.shape[1]) + self.targets[batch.index]",
        "rows = -(t * logits.log_softmax(1)).sum(1)",
        "dlogits = t.sum(1, keepdim=True) * p - t",
        f"return {rows}, {grad}",
    )


def shared(
    name: str, reset: str = "on_epoch_start(self, run, epoch)", when: str = "if epoch == 0"
) -> str:
    """Return a loss that counts its calls in `name`, which begins at 0 with each training."""
    return function(reset, f"{when}: {name} = 0") + scaled_by(name, f"{name} += 1")


def scaled_by(name: str, update: str) -> str:
    """Return a loss whose value depends on the state `name`, which `update` changes."""
    return loss(update, value=f"F.cross_entropy(logits, batch.labels) * (1 + 0.01 * {name})")


def failures(path: Path | str, **more) -> dict[str, str]:
    """Return the messages of the failed checks by name."""
    messages = {}
    for result in runner.check(path, **more):
        if result.status == "FAIL":
            messages[result.name] = result.message
    return messages


def require_found(path, name, says):
    """Fail unless the check `name`, run alone, fails and says what fits each of these patterns."""
    __tracebackhide__ = True
    found = failures(path, only=[name])
    assert set(found) == {name}, found
    for pattern in says:
        assert re.search(pattern, found[name]), found[name]


def complaints(results: list[runner.Result]) -> list[str]:
    """Return the lines of all checks that are not ok.

    `fast-form`, `softmax`, `pairs`, `own-labels` and `gradient-parts` may be skipped: not every
    method has what they look at.
    """
    fine = {
        ("fast-form", "skipped", "it has no loss_and_grad"),
        ("own-labels", "skipped", "it has no own_labels, and no buffer `targets` (N, C)"),
        ("gradient-parts", "skipped", "it has no gradient_parts"),
        ("softmax", "skipped", "it has no loss that could be called with other logits"),
        ("pairs", "skipped", "it has no loss that could be called with other logits"),
        (
            "pairs",
            "skipped",
            "its loss draws random numbers, so two calls give different gradients",
        ),
        (
            "pairs",
            "skipped",
            "it says that its loss couples the examples of a batch (couples_examples)",
        ),
    }

    lines = []
    for result in results:
        if result.status != "ok" and (result.name, result.status, result.message) not in fine:
            lines += result.lines()
    return lines
