"""Accuracy and memorisation, as exact counts.

Besides `train`, only this module sees clean labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from nlbench.contract import returned
from nlbench.method import Batch, Method, Run
from nlbench.results.record import Metrics
from nlbench.results.summary import keyed
from nlbench.training import pulse
from nlbench.training.images import TrainingImages

# Numbers that are looked at together, of a memory (N, C) that may be large.
_PART = 2**24

# ---- Accuracy -----------------------------------------------------------------------------------


class Diverged(Exception):
    """A loss or an output is not finite. `epoch` and `step` count from 0, over the whole run."""

    def __init__(self, message: str, epoch: int, step: int):
        super().__init__(f"{message} in epoch {epoch}, step {step}")
        self.epoch, self.step = epoch, step


def evaluate_epoch(
    method: Method, run: Run, scored: Mapping[str, tuple[TrainingImages, Tensor]]
) -> tuple[Metrics, dict[str, Tensor]]:
    """Evaluate the method on all parts, in evaluation mode.

    Args:
        scored: images and labels (n,) int64 by the part's name; "test" is one of them.
    Returns: the accuracies, and the logits (n, C) of each part by its name.
    Raises: Diverged for outputs that are not finite.
    """
    predict = predictor(method, run)
    metrics: Metrics = {}
    logits = {}
    try:
        for name, (part_images, true) in scored.items():
            part_accuracies, logits[name] = score(predict, part_images, true)
            metrics |= keyed(name, part_accuracies)
    except ArithmeticError as error:
        # The last step that was taken is the one that made the weights.
        raise Diverged(str(error), run.epoch, run.step - 1) from None
    return metrics, logits


def predictor(method: Method, run: Run) -> Callable[[Tensor], Tensor]:
    """Set method and networks to evaluation mode, and return the method's `predict`.

    What is returned raises MethodError for anything but logits (n, C).
    """
    method.eval()
    for network in run.networks:
        network.eval()
    classes = run.task.num_classes
    return lambda images: returned.predicted_logits(
        method.predict(run, images), len(images), classes
    )


def score(
    predict: Callable[[Tensor], Tensor], images: TrainingImages, labels: Tensor
) -> tuple[dict[str, float], Tensor]:
    """Return the accuracies of `predict` on plain images, and its logits (n, C).

    Raises: ArithmeticError if an output is not finite.
    """
    logits = predict_all(predict, images)
    # The argmax of NaN is a class like any other, so the accuracy would not show it.
    if not logits.isfinite().all():
        raise ArithmeticError("the network's output is not finite")
    return accuracies(logits, labels), logits


def predict_all(
    network: Callable[[Tensor], Tensor], images: TrainingImages, batch_size: int = 500
) -> Tensor:
    """Return the logits (N, C) of `network` on all of `images`, without augmentation or gradient.

    A module predicts in evaluation mode and is put back into its mode afterwards.
    """
    # A method's `predict` is no module. `predictor` has set its networks to evaluation mode.
    training = network.training if isinstance(network, nn.Module) else False
    if isinstance(network, nn.Module):
        network.eval()

    # One tensor from the beginning: parts and their union would take twice the memory.
    logits = torch.empty(0)
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            end = min(start + batch_size, len(images))
            part = network(images.plain(start, end))
            if start == 0:
                logits = part.new_empty(len(images), *part.shape[1:])
            logits[start:end] = part
            # A million images take hours on a CPU, in which a run must not look dead.
            pulse.predicted(end, len(images))

    if isinstance(network, nn.Module):
        network.train(training)
    return logits


def accuracies(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return "accuracy" and "top5" in [0, 1] of logits (n, C) for labels (n,) int64.

    With five classes or fewer there is no top-5 accuracy, and its key is absent.
    """
    result = {"accuracy": float((logits.argmax(1) == labels).sum()) / len(labels)}
    if logits.shape[1] > 5:
        in_five = (logits.topk(5, dim=1).indices == labels[:, None]).any(1)
        result["top5"] = float(in_five.sum()) / len(labels)
    return result


# ---- Memorisation -------------------------------------------------------------------------------


class Memorisation:
    """Counts predictions for training examples: right, true, memorised or other.

    Args:
        labels: (N,) int64, the given labels.
        clean_labels: (N,) int64, the true ones; -1 for an example that does not count, because its
            true label is unknown.
    """

    def __init__(self, labels: Tensor, clean_labels: Tensor):
        self._labels, self._clean = labels, clean_labels
        # The places from 8 on are for examples that do not count.
        self._wrong = 4 * (labels != clean_labels) + 8 * (clean_labels < 0)
        # By 4 * wrong label + 2 * predicted as the true class + predicted as the given label.
        # They are on the device, so that a step can count without waiting for the GPU.
        self._counts = torch.zeros(16, dtype=torch.int64, device=labels.device)
        self._one = self._counts.new_ones(())

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Count the classes that logits (B, C) predict for a batch, without waiting for the GPU."""
        self.count(logits.argmax(1), batch.index)

    def count(self, predicted: Tensor, index: Tensor) -> None:
        """Count `predicted` (B,) int64, the classes of the examples at `index` (B,) int64."""
        true, given = predicted == self._clean[index], predicted == self._labels[index]
        kind = self._wrong[index] + 2 * true + given
        self._counts.index_add_(0, kind, self._one.expand(len(index)))

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint within an epoch holds of it."""
        return {"counts": self._counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._counts.copy_(state["counts"])

    def take(self) -> dict[str, float | None]:
        """Return `summary.SHARES` since the last call; None for a share of no example."""
        counts = self._counts.tolist()
        self._counts.zero_()

        clean, right = sum(counts[:4]), counts[3]
        wrong, true, memorised = sum(counts[4:8]), counts[6], counts[5]
        return {
            "clean_right": right / clean if clean else None,
            "wrong_true": true / wrong if wrong else None,
            "wrong_memorised": memorised / wrong if wrong else None,
            "wrong_other": (wrong - true - memorised) / wrong if wrong else None,
        }


def shares(part: str, memorisation: Memorisation | None) -> Metrics:
    """Return the shares that were counted as metrics of a part; nothing without a count."""
    return {} if memorisation is None else keyed(part, memorisation.take())


def target_metrics(method: Method, clean_labels: Tensor | None) -> Metrics:
    """Return "target_accuracy" of the method's buffer `targets` (N, C).

    Nothing if the method has no such buffer, or if the clean labels (N,) int64 are unknown.
    """
    # A buffer of this name may be something else, and then it has another shape.
    targets = getattr(method, "targets", None)
    shape = method.task.num_train, method.task.num_classes
    if clean_labels is None or not isinstance(targets, Tensor) or targets.shape != shape:
        return {}
    return {"target_accuracy": target_accuracy(targets, clean_labels)}


def target_accuracy(targets: Tensor, clean_labels: Tensor) -> float:
    """Return how often the argmax of `targets` (N, C) is the clean label (N,), in [0, 1].

    Rows of zeros do not count: their examples have not been seen yet. Neither do examples whose
    clean label is unknown, -1.
    """
    right, total = 0, 0
    # In parts, because a copy of all targets may not fit into memory.
    size = rows_of(targets)
    for rows, clean in zip(targets.split(size), clean_labels.split(size), strict=True):
        used = (rows.abs().sum(1) > 0) & (clean >= 0)
        right += int(((rows.argmax(1) == clean) & used).sum())
        total += int(used.sum())
    return right / max(total, 1)


def rows_of(values: Tensor) -> int:
    """Return in how many rows at a time (N, ...) values are to be looked at, at least 1."""
    return max(1, _PART * len(values) // max(values.numel(), 1))
