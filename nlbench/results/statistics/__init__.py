"""The statistics of tables and reports, on plain numbers. docs/statistics.md explains them.

`basic` has means and tests of one difference, `ranges` the distributions of Tukey and Dunnett,
`pairs` all pairs of rows at once, `letters` and `ranks` what follows from the pairs, `best` the
comparison with the best row, `power` what a number of seeds can show, `datasets` average ranks.
"""

from nlbench.results.statistics.basic import (
    Interval,
    Sample,
    Welch,
    bootstrap_interval,
    correlation,
    difference_std,
    holm,
    mean,
    pair_signs,
    paired_interval,
    paired_p,
    sample_std,
    share_error,
    sign,
    student_critical,
    tau_b,
    welch,
    welch_interval,
)

__all__ = [
    "Interval",
    "Sample",
    "Welch",
    "bootstrap_interval",
    "correlation",
    "difference_std",
    "holm",
    "mean",
    "pair_signs",
    "paired_interval",
    "paired_p",
    "sample_std",
    "share_error",
    "sign",
    "student_critical",
    "tau_b",
    "welch",
    "welch_interval",
]
