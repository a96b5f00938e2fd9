"""The runs behind a page's cells, as data that its script shows on demand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nlbench.report import curves

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord
    from nlbench.results.store import Store

# A record has more digits than anybody reads. With fewer than these, a share that is rounded again
# to two digits of a percentage could differ from the one in a table.
_DIGITS = 8

# Recalls of this many classes are shown. Of hundreds nobody reads a list.
_MOST_CLASSES = 20

# Facts about the labels that say something about a run.
_LABELS = (
    "asked_rate",
    "noise_rate_full",
    "noise_rate_train",
    "noise_rate_val",
    "num_known",
    "estimated_rate",
    "num_train",
    "num_val",
    "num_test",
    "variant",
    "labels_hash",
)


@dataclass
class Pool:
    """Values that many runs share, each once. A run has their numbers in place of them."""

    values: list[Any] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def number(self, value: object) -> int:
        """Return the number of a value, which is added where it is new."""
        text = json.dumps(value, sort_keys=True, default=str)
        if text not in self._places:
            self._places[text] = len(self.values)
            self.values.append(json.loads(text))
        return self._places[text]


@dataclass
class Runs:
    """Collects the runs of a page.

    Attributes:
        by_key: what is shown of each run; a number stands for an entry of `pool`.
        listed: the keys that a list of runs has named already.
    """

    store: Store
    pool: Pool = field(default_factory=Pool)
    by_key: dict[str, dict[str, Any]] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    _curves: dict[str, dict[str, curves.Curve]] = field(default_factory=dict)

    def add(self, record: RunRecord) -> None:
        """Add a run, unless it was added for another suite."""
        if record.key in self.by_key:
            return
        spec = record.spec
        data = {name: spec.get(name) for name in ("dataset", "labels", "noise", "fingerprint")}
        labels = {name: value for name, value in record.noise.items() if name in _LABELS and value}
        shown: dict[str, Any] = {
            "status": record.status,
            "seed": spec["seed"],
            "method": self.pool.number(spec["method"]),
            "params": self.pool.number(spec.get("params", {})),
            "told": self.pool.number({**spec.get("told", {}), **_told(record)}),
            "data": self.pool.number(data),
            "labels": self.pool.number(labels),
            "protocol": self.pool.number(spec.get("protocol", {})),
            "environment": self.pool.number(dict(record.environment)),
            "facts": self.pool.number(_facts(record)),
            "metrics": _rounded(record.metrics),
            "seconds": _rounded(record.timing, 1),
            "code": self.pool.number(record.code),
        }
        if record.error_message:
            shown["error"] = record.error_message
        if record.warnings:
            shown["warnings"] = self.pool.number(record.warnings)
        recall = dict(record.classes).get("recall")
        if isinstance(recall, list) and len(recall) <= _MOST_CLASSES:
            shown["recall"] = _recalls(record, recall)
        found = curves.read_curves(self.store.run_dir(record.key))
        if found:
            # Runs of one length have the same epochs.
            epochs = self.pool.number([int(place or 0) for place in found["epoch"]])
            shown["curves"] = {"epoch": epochs, **curves.of_one_run(found)}
            self._curves[record.key] = found
        self.by_key[record.key] = shown

    def memorisation(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the mean curves of these runs; empty where they have none in common."""
        found = [self._curves[key] for key in keys if key in self._curves]
        means: dict[str, Any] = curves.mean_of(found)
        return {**means, "epoch": self.pool.number(means["epoch"])} if means else {}

    def data(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {"pool": self.pool.values, "runs": self.by_key}


def _told(record: RunRecord) -> dict[str, Any]:
    """Return the privileged information that a run was given, as far as its record says it."""
    given: dict[str, Any] = dict.fromkeys(record.method.get("told", []), "as measured")
    rate = record.method.get("told_noise_rate")
    if rate is not None:
        given["noise_rate"] = rate
    return given


def _facts(record: RunRecord) -> dict[str, Any]:
    left_out = ("told", "told_noise_rate")
    return {name: value for name, value in record.method.items() if name not in left_out and value}


def _recalls(record: RunRecord, recall: list[Any]) -> dict[str, Any]:
    names = record.classes.get("names") or [f"class {number}" for number in range(len(recall))]
    return _rounded(dict(zip(names, recall, strict=False)))


def _rounded(values: Mapping[str, Any], digits: int = _DIGITS) -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        found[name] = round(value, digits) if isinstance(value, float) else value
    return found
