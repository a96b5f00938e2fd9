"""What a run keeps of probabilities, and of the method's own opinion of the given labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nlbench.contract.returned import described
from nlbench.method import Method
from nlbench.training.evaluate import rows_of
from nlbench.training.examples import rounded

# Probabilities of so few are kept without being asked for.
FEW = 20_000


# ---- Probabilities -------------------------------------------------------------------------------


def probability_arrays(logits: Mapping[str, Tensor], asked: bool) -> dict[str, np.ndarray]:
    """Return the probabilities of parts of the data, by the name of their array.

        train_probs, test_probs, val_probs   float16, (n, C), the softmax of the logits

    Args:
        logits: (n, C) of the method after the last epoch, by part; "val" is the validation part.
        asked: keep them of every part, and not only where n * C is at most 20,000.
    """
    arrays = {}
    for part, values in logits.items():
        if asked or values.numel() <= FEW:
            probs = values.double().softmax(1)
            arrays[f"{part}_probs"] = probs.cpu().numpy().astype("float16")
    return arrays


# ---- The method's own opinion --------------------------------------------------------------------


def own_arrays(method: Method) -> tuple[dict[str, np.ndarray], str]:
    """Return what the method itself says of the given labels, and a warning if it cannot be kept.

        own_score   float32, (N,), how far the given label is trusted, in [0, 1], `rounded`; NaN for
                    an example of which the method says nothing
        own_label   int16, (N,), the class that the method suggests, -1 for such an example; absent
                    if the method suggests none

    Nothing, if the method has no such opinion or the same one of every example.
    """
    # The training has ended. What a method only reports must not lose its result, also where it
    # ends the process, or returns a tensor with which nothing can be computed.
    try:
        own = method.own_labels()
        if own is None:
            return {}, ""
        problem = _problem(own, method)
        if problem:
            return {}, f"own_labels returned {problem}, so that nothing is kept of it"
        return _kept(own, method), ""
    except (Exception, SystemExit) as error:
        return {}, f"own_labels raised {type(error).__name__}: {error}"[:500]


def _kept(own: Tensor, method: Method) -> dict[str, np.ndarray]:
    """Return the arrays of `own_arrays` for what `own_labels` has returned, (N,) or (N, C)."""
    # It may lie on the CPU, and the labels on a GPU.
    labels = method.task.labels
    own = own.detach().to(labels.device)
    suggested = None
    if own.dim() == 2:
        scores, suggested = _of_soft_labels(own, labels)
    else:
        scores = own.double()
    known = scores[~scores.isnan()]
    if not len(known) or (len(known) == len(scores) and bool((known == known[0]).all())):
        return {}

    arrays = {"own_score": rounded(scores.cpu().numpy().astype("float32"))}
    if suggested is not None:
        arrays["own_label"] = suggested.cpu().numpy().astype("int16")
    return arrays


def _problem(own: object, method: Method) -> str:
    """Describe what is wrong with a return value of `own_labels`, or return an empty string."""
    task = method.task
    shapes = (task.num_train,), (task.num_train, task.num_classes)
    if not isinstance(own, Tensor) or tuple(own.shape) not in shapes:
        wanted = " or ".join(map(str, shapes))
        return f"{described(own)} and no tensor {wanted}"
    if own.is_complex():
        return f"{described(own)} and no real numbers"
    # In parts, because a copy of a soft label for each example may not fit into memory.
    for part in own.detach().split(rows_of(own)):
        # Of integers and truth values there is no NaN, and of truth values no smallest one.
        values = part.double()
        known = values[~values.isnan()]
        if len(known) and float(known.min()) < 0:
            return "negative numbers"
        if own.dim() == 1 and len(known) and float(known.max()) > 1:
            return "numbers above 1"
        if values.isinf().any():
            return "infinite numbers"
    return ""


def _of_soft_labels(own: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the score of the given label and the suggested class, (N,), for soft labels (N, C)."""
    scores, suggested = [], []
    size = rows_of(own)
    for part, given in zip(own.split(size), labels.split(size), strict=True):
        rows = part.double()
        totals = rows.sum(1)
        known = totals > 0
        score = rows.gather(1, given[:, None]).squeeze(1) / totals
        scores.append(torch.where(known, score, torch.nan))
        suggested.append(torch.where(known, rows.argmax(1), -1))
    return torch.cat(scores), torch.cat(suggested)
