"""Metrics."""

from __future__ import annotations

from nlbench.errors import SuiteError, did_you_mean

# name on the command line -> (key in a record's metrics, head of its column, what it is)
METRICS = {
    "last": ("last", "last epoch", "test accuracy after the last epoch"),
    "last10": ("last10", "last 10 epochs", "test accuracy, mean of the last ten epochs"),
    "best": ("best", "best (oracle)", "test accuracy at the epoch that is best on the test set, an oracle"),
    "selected": ("selected", "selected", "test accuracy at the epoch that noisy validation labels select"),
    "top5": ("last_top5", "top-5", "top-5 test accuracy after the last epoch"),
    "memorised": ("final_wrong_memorised", "memorised", "wrongly labelled training examples predicted as labelled"),
    "clean-right": ("final_clean_right", "clean right", "correctly labelled training examples predicted right"),
    "targets": ("target_accuracy", "targets right", "target memories whose argmax is the clean label"),
    "selected-clean": (
        "selected_clean",
        "selected on clean val",
        "test accuracy at the epoch that clean labels select",
    ),
    "ilsvrc12": ("ilsvrc12_last", "ILSVRC12", "accuracy on the ILSVRC12 validation images after the last epoch"),
    "ilsvrc12-top5": ("ilsvrc12_last_top5", "ILSVRC12 top-5", "top-5 accuracy on them after the last epoch"),
    "single": ("single_mean", "single network", "test accuracy of the networks one by one, their mean"),
}
DETAILS = (
    "last", "top5", "last10", "best", "selected", "selected-clean", "ilsvrc12", "ilsvrc12-top5", "single",
    "clean-right", "memorised",
)  # fmt: skip


def check_metric(metric: str) -> None:
    """Raises SuiteError for a metric that is none of METRICS."""
    if metric not in METRICS:
        raise SuiteError(f"--metric {metric}: unknown. There are: {', '.join(METRICS)}.{did_you_mean(metric, METRICS)}")
