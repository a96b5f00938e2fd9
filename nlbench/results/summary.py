"""What a run reports, from the metrics of its epochs.

Training computes the metrics of a record here, and `nlbench verify` computes them again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nlbench.results.record import Metrics

# Shares of training examples by what is predicted for them. The first is a share of the correctly
# labelled ones, those predicted right. The others are shares of the wrongly labelled ones: those
# predicted as their true class, as their wrong label, and as neither.
SHARES = ("clean_right", "wrong_true", "wrong_memorised", "wrong_other")


def metric_key(part: str, metric: str) -> str:
    """Return the key of a metric in the epoch metrics and in a record.

    Args:
        part: a scored part such as "test"; "online" or "final" for the shares of `Memorisation`.
        metric: "accuracy", "top5" or one of those shares.
    """
    return f"{part}_{metric}"


def keyed(part: str, metrics: Mapping[str, float | None]) -> Metrics:
    """Return `metrics` with the keys that they have for this part."""
    return {metric_key(part, metric): value for metric, value in metrics.items()}


def summarise(history: Sequence[Metrics], parts: Collection[str]) -> Metrics:
    """Return the accuracies that a run reports.

        last            of the last epoch: the headline
        last10          mean of the last ten epochs, or of all if there are fewer
        best            the best epoch's on the test set, which no real training could know
        selected        of the first epoch that is best on the noisy validation part
        val_last        on the noisy labels of the validation part
        selected_clean  of the first epoch that is best on a validation set with true labels
        labelwave       of the epoch that LabelWave selects, see `labelwave_epoch`
        NAME_last       on a further test set; NAME_last_top5 its top-5 accuracy
        target_accuracy, online_...    of the last epoch, as in the history

    Args:
        history: the metrics of each epoch.
        parts: names of the parts that were scored.
    """
    test = _column(history, "test", "accuracy")
    last = history[-1]
    tail = test[-10:]
    metrics: Metrics = {"last": test[-1], "last10": sum(tail) / len(tail)}
    _add_epoch(metrics, "best", test, _first_best(test))
    if metric_key("test", "top5") in last:
        metrics["last_top5"] = last[metric_key("test", "top5")]

    # A validation set selects an epoch, and the test accuracy of that epoch is reported.
    if "val" in parts:
        validation = _column(history, "val", "accuracy")
        _add_epoch(metrics, "selected", test, _first_best(validation))
        metrics["val_last"] = validation[-1]
    if "clean_val" in parts:
        validation = _column(history, "clean_val", "accuracy")
        _add_epoch(metrics, "selected_clean", test, _first_best(validation))

    if CHANGES in last:
        _add_labelwave(metrics, history, test)

    for part in parts:
        if part in ("test", "val", "clean_val"):
            continue
        metrics[f"{part}_last"] = last[metric_key(part, "accuracy")]
        if metric_key(part, "top5") in last:
            metrics[f"{part}_last_top5"] = last[metric_key(part, "top5")]

    for key in (*(metric_key("online", share) for share in SHARES), "target_accuracy"):
        if key in last:
            metrics[key] = last[key]
    return metrics


# ---- LabelWave -----------------------------------------------------------------------------------

# Epoch metrics: of the training examples that both this epoch and the one before it have seen, how
# many there are, and for how many another class is predicted.
CHANGES, COMPARED = "prediction_changes", "predictions_compared"

# Epochs in the moving average.
WINDOW = 3


def labelwave_epoch(history: Sequence[Metrics]) -> int | None:
    """Return the epoch that LabelWave selects, counted from 0; None where it can select none.

    PC(e) is the number of training examples whose predicted class in the training pass of epoch e
    differs from that in epoch e - 1. It is smoothed by the mean over the epochs e - 2 to e, and the
    selected epoch is the first one after which that mean rises: its first local minimum. If it
    never rises, the training would not have been stopped, so the last epoch is selected.

    The first epoch has no PC, so the first mean is that of epoch 3. An epoch whose steps return no
    logits has none either. If such an epoch comes before the first minimum, no epoch is selected.

    Source: Yuan, Feng and Liu, ICLR 2024, arXiv:2502.07551. Where an epoch holds a part of the
    examples, the number that two epochs have both seen varies. So the changes of three epochs are
    divided by the number of examples that were compared in them.
    """
    smoothed = [_smoothed(history, epoch) for epoch in range(len(history))]
    seen = [epoch for epoch, value in enumerate(smoothed) if value is not None]
    if not seen:
        return None

    for epoch in range(seen[0], len(history) - 1):
        now, after = smoothed[epoch], smoothed[epoch + 1]
        if now is None or after is None:
            return None
        if after > now:
            return epoch
    return len(history) - 1


def _smoothed(history: Sequence[Metrics], epoch: int) -> float | None:
    """Return the share of changed predictions in the epochs up to `epoch`, if all have one."""
    changes = compared = 0.0
    for metrics in history[max(epoch - WINDOW + 1, 0) : epoch + 1]:
        changed, number = metrics.get(CHANGES), metrics.get(COMPARED)
        if changed is None or not number:
            return None
        changes += changed
        compared += number
    # Sums of whole numbers are exact. So a mean that stays the same is no rise.
    return changes / compared


def _add_labelwave(metrics: Metrics, history: Sequence[Metrics], test: Sequence[float]) -> None:
    epoch = labelwave_epoch(history)
    metrics["labelwave"] = None if epoch is None else test[epoch]
    metrics["labelwave_epoch"] = epoch


# ---- Parts of the history ------------------------------------------------------------------------


def _column(history: Sequence[Metrics], part: str, metric: str) -> list[float]:
    values = []
    for metrics in history:
        value = metrics[metric_key(part, metric)]
        assert value is not None
        values.append(value)
    return values


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])


def _add_epoch(metrics: Metrics, name: str, test: Sequence[float], epoch: int) -> None:
    metrics[name] = test[epoch]
    metrics[f"{name}_epoch"] = epoch
