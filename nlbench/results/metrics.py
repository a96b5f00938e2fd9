"""The one list of metrics: names, headings, and the published number each can be compared with.

To add a metric, compute it in `results.summary.summarise`, which puts it into every record under
a key, and add one entry with that key to METRICS. The tables, `--metric`, the CSV file and
`nlbench.load` then have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nlbench.errors import SuiteError, did_you_mean


class Reported(NamedTuple):
    """The kind of a published number: what was measured, at which epoch, on which images.

    Attributes:
        measure: "top1" or "top5".
        selection: the rule that chose the epoch, a key of published.records.SELECTIONS.
        test_set: the test set where it is not the dataset's own, else empty.
    """

    measure: str
    selection: str
    test_set: str = ""


@dataclass(frozen=True)
class Metric:
    """One number that every finished run may have.

    Attributes:
        name: what `--metric` and the CSV file call it.
        key: its key in a record's metrics, and its column in `nlbench.load`.
        heading: the heading of its column in a table.
        meaning: what it measures, as the title of its table says it.
        details: its place among the columns of the table of one condition; 0 leaves it out there.
        reported_as: the published numbers that may be shown beside it; None if there are none.
    """

    name: str
    key: str
    heading: str
    meaning: str
    details: int = 0
    reported_as: Reported | None = None


# In the order of the lines of the CSV file.
_LIST = (
    Metric(
        "last",
        key="last",
        heading="last epoch",
        meaning="test accuracy after the last epoch",
        details=1,
        reported_as=Reported("top1", "last"),
    ),
    Metric(
        "last10",
        key="last10",
        heading="last 10 epochs",
        meaning="test accuracy, mean of the last ten epochs",
        details=3,
        reported_as=Reported("top1", "last10"),
    ),
    Metric(
        "best",
        key="best",
        heading="best (oracle)",
        meaning="test accuracy at the epoch that is best on the test set, an oracle",
        details=4,
        reported_as=Reported("top1", "best"),
    ),
    Metric(
        "selected",
        key="selected",
        heading="selected",
        meaning="test accuracy at the epoch that noisy validation labels select",
        details=5,
        reported_as=Reported("top1", "noisy-val"),
    ),
    Metric(
        "top5",
        key="last_top5",
        heading="top-5",
        meaning="top-5 test accuracy after the last epoch",
        details=2,
        reported_as=Reported("top5", "last"),
    ),
    Metric(
        "memorised",
        key="final_wrong_memorised",
        heading="memorised",
        meaning="wrongly labelled training examples predicted as labelled",
        details=11,
    ),
    Metric(
        "clean-right",
        key="final_clean_right",
        heading="clean right",
        meaning="correctly labelled training examples predicted right",
        details=10,
    ),
    Metric(
        "targets",
        key="target_accuracy",
        heading="targets right",
        meaning="target memories whose argmax is the clean label",
    ),
    Metric(
        "selected-clean",
        key="selected_clean",
        heading="selected on clean val",
        meaning="test accuracy at the epoch that clean labels select",
        details=6,
        reported_as=Reported("top1", "clean-val"),
    ),
    # mini-WebVision is also tested on the validation images of ILSVRC12.
    Metric(
        "ilsvrc12",
        key="ilsvrc12_last",
        heading="ILSVRC12",
        meaning="accuracy on the ILSVRC12 validation images after the last epoch",
        details=7,
        reported_as=Reported("top1", "last", "ilsvrc12"),
    ),
    Metric(
        "ilsvrc12-top5",
        key="ilsvrc12_last_top5",
        heading="ILSVRC12 top-5",
        meaning="top-5 accuracy on the ILSVRC12 validation images after the last epoch",
        details=8,
        reported_as=Reported("top5", "last", "ilsvrc12"),
    ),
    Metric(
        "single",
        key="single_mean",
        heading="single network",
        meaning="test accuracy of the networks one by one, their mean",
        details=9,
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _LIST}


def _columns_of_details() -> tuple[Metric, ...]:
    shown = [metric for metric in _LIST if metric.details]
    return tuple(sorted(shown, key=lambda metric: metric.details))


def _with_published_numbers() -> dict[str, Reported]:
    """Return name -> what sources report: own test set first, then top-1 before top-5."""
    reported = {m.name: m.reported_as for m in _LIST if m.reported_as is not None}
    return dict(sorted(reported.items(), key=lambda item: (item[1].test_set, item[1].measure)))


# The columns of the table of one condition, and the metrics that published numbers stand beside.
DETAILS = _columns_of_details()
MEASURES = _with_published_numbers()


def check_metric(name: str) -> None:
    """Raise SuiteError for a name that is none of METRICS."""
    if name in METRICS:
        return
    raise SuiteError(
        f"--metric {name}: unknown. There are: {', '.join(METRICS)}.{did_you_mean(name, METRICS)}"
    )
