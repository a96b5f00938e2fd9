"""Results of made-up runs that are on no disk, for tests of what reads records."""

from pathlib import Path

import made_up

from nlbench.results.cells import Results
from nlbench.results.integrity import RunFiles


class Memory:
    """A store in memory: a table reads records from it, and nothing is written to a disk."""

    def __init__(self, root="memory"):
        self.records = {}
        self.root = Path(root)

    def write(self, record):
        self.records[record.key] = record
        return record.key

    def read_ahead(self, keys):
        """Do nothing: all records are in memory."""

    def check(self, key):
        return RunFiles(record=self.records[key]) if key in self.records else None

    def reproduced_under(self, key, code):
        return True


def results_of(store, values, *, seeds=5, statuses=None, parts=None, metric="last", **plan):
    """Write runs and return the results of a suite that has them.

    Args:
        values: row -> the metric by seed; None for a run that is missing.
        statuses: (row, seed) -> the status of a run without metrics.
        parts: row -> further parts of its records.
    """
    keys = {}
    for row, by_seed in values.items():
        for seed in range(seeds):
            keys[row, seed] = "0" * 16
            more = (parts or {}).get(row, {})
            status = (statuses or {}).get((row, seed))
            if status == "failed":
                more = {**more, "noise": {}}
            if status:
                record = made_up.record_of(
                    row, seed, status=status, metrics={}, error={"message": "x"}, **more
                )
                keys[row, seed] = store.write(record)
            elif seed < len(by_seed) and by_seed[seed] is not None:
                metrics = {"last": 0.5, metric: by_seed[seed]}
                record = made_up.record_of(row, seed, metrics=metrics, **more)
                keys[row, seed] = store.write(record)
    plan = made_up.plan_of(keys, rows=list(values), seeds=list(range(seeds)), **plan)
    return Results(plan, store, {})
