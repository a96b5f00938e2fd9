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
