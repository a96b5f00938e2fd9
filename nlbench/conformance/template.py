"""Write a method file to start from: `nlbench new-method`."""

from __future__ import annotations

import re
from pathlib import Path

from nlbench import registry
from nlbench.errors import SuiteError

_TEMPLATE = '''\
"""Generalised cross entropy, to start from. Zhang & Sabuncu, NeurIPS 2018, arXiv:1805.07836.

CHANGE the line above: your method, its authors, venue and year, and an arXiv number, a DOI or a
URL; or "My loss. Unpublished." `nlbench list methods` prints it. Then say what the method does in a
few sentences, and what differs from the paper and why.
"""

import torch
from torch import Tensor

from nlbench.method import Batch, Method, Task


class {cls}(Method):
    # CHANGE: the arguments after `task` are the hyperparameters that a suite may set. Each has a
    # type and a default, and a comment that says where the default comes from.
    # q is 0.7 on every dataset in the paper.
    def __init__(self, task: Task, q: float = 0.7):
        super().__init__(task)
        if not 0 < q <= 1:
            raise ValueError(f"q must be in (0, 1], got {{q}}")
        self.q = q

        # State that must survive a stop and a resume is a buffer. This one has a row for each
        # training example; update it in `loss` with self.targets[batch.index] = ... (detached):
        # self.register_buffer("targets", torch.zeros(task.num_train, task.num_classes))

    # CHANGE: the loss. logits are (B, C) float32; batch.labels (B,) are the given labels, some of
    # them wrong; batch.index (B,) are the positions of these examples in the training set. Do not
    # write to any of them. Return one value, or a value for each example, (B,).
    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = logits.log_softmax(1).gather(1, batch.labels[:, None]).squeeze(1)
        return -torch.expm1(self.q * log_p) / self.q

    # If a loss is not enough: nlbench.method.Method documents prepare, on_epoch_start, batches,
    # training_step, on_epoch_end and predict, num_networks = 2, and told = ("noise_rate",).
    # Draw random numbers from run.generator(name).
'''


def write(name: str, folder: Path) -> Path:
    """Write the file of a new method `name` into `folder`, and return its path.

    Raises: SuiteError for a name that is not allowed or is taken.
    """
    # The name of a class, such as MyLoss, is a common mistake: it becomes my-loss in the hint.
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name.removesuffix(".py")).lower()
    plain = "-".join(re.findall(r"[a-z0-9]+", words))
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        better = plain if plain[:1].isalpha() else f"my-{plain}".rstrip("-")
        raise SuiteError(
            f"{name!r} cannot be a method's name: it takes lower-case letters, digits and dashes, "
            f"and begins with a letter. Did you mean {better!r}?"
        )

    # A method's name has dashes. Its file has underscores, as the names of modules have.
    path = folder / f"{plain.replace('-', '_')}.py"
    if path.exists():
        raise SuiteError(f"{path} exists already; choose another name, or remove it first")
    known = registry.method_files([folder] if folder.is_dir() else [])
    if plain in known:
        raise SuiteError(
            f"a method {plain!r} exists already: {known[plain].path}; "
            f"choose another name, for example 'my-{plain}'"
        )

    folder.mkdir(parents=True, exist_ok=True)
    cls = "".join(part.capitalize() for part in plain.split("-"))
    path.write_text(_TEMPLATE.format(cls=cls), encoding="utf-8")
    return path
