"""Accuracy and memorisation, as exact counts. The only module besides `train` that sees clean labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nlbench.method import Batch
from nlbench.training.images import TrainingImages


def predict_all(
    network: Callable[[Tensor], Tensor], images: TrainingImages, batch_size: int = 500
) -> Tensor:
    """Return the logits (N, C) of `network` on all of `images`, without augmentation or gradient.

    A module predicts in evaluation mode and is put back into its mode afterwards.
    """
    training = network.training if isinstance(network, nn.Module) else False
    if isinstance(network, nn.Module):
        network.eval()

    starts = range(0, len(images), batch_size)
    with torch.no_grad():
        logits = torch.cat([network(images.plain(i, i + batch_size)) for i in starts])

    if isinstance(network, nn.Module):
        network.train(training)
    return logits


def accuracies(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 accuracy in [0, 1]: correct / total over all of `logits` (N, C), `labels` (N,) int64.

    With five classes or fewer there is no top-5, and its key is absent.
    """
    result = {"accuracy": float((logits.argmax(1) == labels).sum()) / len(labels)}
    if logits.shape[1] > 5:
        in_five = (logits.topk(5, dim=1).indices == labels[:, None]).any(1)
        result["top5"] = float(in_five.sum()) / len(labels)
    return result


class Memorisation:
    """Counts, on the device, of what a network says on training examples: right, true, memorised or other.

    Args:
        labels: (N,) int64, the given labels.
        clean_labels: (N,) int64, the true ones.
    """

    def __init__(self, labels: Tensor, clean_labels: Tensor):
        self._labels, self._clean = labels, clean_labels
        self._wrong = 4 * (labels != clean_labels)
        self._counts = torch.zeros(8, dtype=torch.int64, device=labels.device)
        self._one = self._counts.new_ones(())

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Count `logits` (B, C) of the examples `batch.index`; no synchronisation with the host."""
        self.count(logits.argmax(1), batch.index)

    def count(self, predicted: Tensor, index: Tensor) -> None:
        true, given = predicted == self._clean[index], predicted == self._labels[index]
        kind = self._wrong[index] + 2 * true + given
        self._counts.index_add_(0, kind, self._one.expand(len(index)))

    def take(self) -> dict[str, float | None]:
        """Fractions since the last call, None where there is no such example; the counts start again at zero.

        clean_right: of the correctly labelled, predicted right. wrong_true, wrong_memorised, wrong_other: of the
        wrongly labelled, predicted as their true class, as their wrong label, as neither.
        """
        counts = self._counts.tolist()  # by 4 * wrong label + 2 * predicted true + predicted as given
        self._counts.zero_()
        clean, right = sum(counts[:4]), counts[3]
        wrong, true, memorised = sum(counts[4:]), counts[6], counts[5]
        return {
            "clean_right": right / clean if clean else None,
            "wrong_true": true / wrong if wrong else None,
            "wrong_memorised": memorised / wrong if wrong else None,
            "wrong_other": (wrong - true - memorised) / wrong if wrong else None,
        }


def target_accuracy(targets: Tensor, clean_labels: Tensor) -> float:
    """How often argmax of `targets` (N, C) is the clean label, over rows that hold anything; in [0, 1]."""
    used = targets.abs().sum(1) > 0
    right = (targets.argmax(1) == clean_labels) & used
    return float(right.sum()) / max(int(used.sum()), 1)


def summarise(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The accuracies a run reports, from its rows by epoch.

    last (headline), last10 (mean of the last ten epochs, or of all where there are fewer), best (over epochs on the
    test set: an oracle) and, where a noisy validation part exists, selected (at the first epoch that is best on it) and
    val_last (on the validation part's own noisy labels). selected_clean is selected by true labels of a validation set,
    NAME_last and NAME_last_top5 are the last epoch's on a further test set.
    """
    test = [row["test_accuracy"] for row in history]
    tail = test[-10:]
    best = max(range(len(test)), key=lambda e: test[e])
    metrics: dict[str, Any] = {
        "last": test[-1],
        "last10": sum(tail) / len(tail),
        "best": test[best],
        "best_epoch": best,
    }
    if history[-1].get("test_top5") is not None:
        metrics["last_top5"] = history[-1]["test_top5"]
    if history[-1].get("val_accuracy") is not None:
        chosen = max(range(len(test)), key=lambda e: history[e]["val_accuracy"])
        metrics |= {"selected": test[chosen], "selected_epoch": chosen, "val_last": history[-1]["val_accuracy"]}
    if history[-1].get("clean_val_accuracy") is not None:
        chosen = max(range(len(test)), key=lambda e: history[e]["clean_val_accuracy"])
        metrics |= {"selected_clean": test[chosen], "selected_clean_epoch": chosen}
    for name in history[-1]:  # of further test sets
        own, _, kind = name.rpartition("_")
        if kind in ("accuracy", "top5") and own not in ("test", "val", "target", "clean_val"):
            metrics[f"{own}_last{'' if kind == 'accuracy' else '_top5'}"] = history[-1][name]
    return metrics


class Diverged(Exception):
    """A loss or an output is not finite. `epoch` and `step` from 0, `step` over the whole training."""

    def __init__(self, message: str, epoch: int, step: int):
        super().__init__(f"{message} in epoch {epoch}, step {step}")
        self.epoch, self.step = epoch, step


def score(
    predict: Callable[[Tensor], Tensor], images: TrainingImages, labels: Tensor
) -> tuple[dict[str, float], Tensor]:
    """Accuracies of `predict` over `images` without augmentation, and its predicted classes (N,) int64.

    Raises ArithmeticError when an output is not finite: the argmax of NaN is a class like any other.
    """
    logits = predict_all(predict, images)
    if not logits.isfinite().all():
        raise ArithmeticError("the network's output is not finite")
    return accuracies(logits, labels), logits.argmax(1)
