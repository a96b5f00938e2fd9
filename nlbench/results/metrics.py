"""The one list of metrics: names, headings, and the published number each can be compared with.

To add a metric, compute it in `results.summary.summarise`, from the metrics of the epochs, or in
`training.measures`, from the outputs of the last epoch. Both put it into every record under a key.
Then add one entry with that key to METRICS. The tables, `--metric`, the CSV file and `nlbench.load`
then have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

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
        unit: "%" for a share in [0, 1], which tables print in percent; "nats"; "epochs".
        lower_is_better: whether a smaller value is the better one. None where neither is.
        reported_as: the published numbers that may be shown beside it; None if there are none.
        is_count: whether it counts examples of the dataset's own test set, so that every value is
            a multiple of 1 / num_test.
    """

    name: str
    key: str
    heading: str
    meaning: str
    details: int = 0
    unit: Literal["%", "nats", "epochs"] = "%"
    lower_is_better: bool | None = False
    reported_as: Reported | None = None
    is_count: bool = False

    @property
    def is_share(self) -> bool:
        """Whether its values are shares in [0, 1]."""
        return self.unit == "%"

    @property
    def scale(self) -> float:
        """The factor between a value of a record and the number that a table prints."""
        return 100.0 if self.is_share else 1.0


# In the order of the lines of the CSV file.
_LIST = (
    Metric(
        "last",
        key="last",
        heading="last epoch",
        meaning="test accuracy after the last epoch",
        details=1,
        reported_as=Reported("top1", "last"),
        is_count=True,
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
        is_count=True,
    ),
    Metric(
        "selected",
        key="selected",
        heading="selected",
        meaning="test accuracy at the epoch that noisy validation labels select",
        details=5,
        reported_as=Reported("top1", "noisy-val"),
        is_count=True,
    ),
    Metric(
        "top5",
        key="last_top5",
        heading="top-5",
        meaning="top-5 test accuracy after the last epoch",
        details=2,
        reported_as=Reported("top5", "last"),
        is_count=True,
    ),
    Metric(
        "memorised",
        key="final_wrong_memorised",
        heading="memorised",
        meaning="wrongly labelled training examples predicted as labelled",
        details=11,
        lower_is_better=True,
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
        "val",
        key="val_last",
        heading="noisy validation",
        meaning="accuracy on noisy validation labels after the last epoch",
    ),
    Metric(
        "selected-clean",
        key="selected_clean",
        heading="selected on clean val",
        meaning="test accuracy at the epoch that clean labels select",
        details=6,
        reported_as=Reported("top1", "clean-val"),
        is_count=True,
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
    Metric(
        "labelwave",
        key="labelwave",
        heading="LabelWave",
        meaning="test accuracy at the epoch that LabelWave selects, without any label",
        details=12,
        is_count=True,
    ),
    Metric(
        "labelwave-epoch",
        key="labelwave_epoch",
        heading="LabelWave epoch",
        meaning="the epoch that LabelWave selects, counted from 0",
        details=13,
        unit="epochs",
        lower_is_better=None,
    ),
    Metric(
        "balanced",
        key="balanced_accuracy",
        heading="balanced",
        meaning="balanced test accuracy after the last epoch, the mean over classes of the recall",
        details=14,
    ),
    Metric(
        "macro-f1",
        key="macro_f1",
        heading="macro F1",
        meaning="macro F1 on the test images after the last epoch",
        details=15,
    ),
    Metric(
        "ece",
        key="ece",
        heading="ECE",
        meaning="expected calibration error on the test images, 15 bins of equal width",
        details=16,
        lower_is_better=True,
    ),
    Metric(
        "nll",
        key="nll",
        heading="NLL",
        meaning="negative log-likelihood of the test labels after the last epoch",
        details=17,
        unit="nats",
        lower_is_better=True,
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
