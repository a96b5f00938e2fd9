"""Spec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlbench.plan.suite_file import Suite

SCHEMA = 1  # of what a run key hashes; a change of meaning without a change of values raises it


@dataclass(frozen=True)
class RunSpec:
    """One run. `identity()` is everything that can change its result and nothing else; the key is its hash."""

    row: str  # the suite's name of the method's row; not part of the key
    method: str
    params: dict[str, Any]
    dataset: str
    labels: str  # the label set; "clean" when noise is drawn
    noise: dict[str, Any] | None  # fully resolved
    fingerprint: str  # of the decoded data and, for human labels, of the label set
    protocol: dict[str, Any]
    seed: int
    # Where files lie whose content is in the identity: of a `file` or `matrix` noise, a folder dataset, the weights.
    noise_path: str = ""
    data_path: str = ""
    weights_path: str = ""

    def identity(self) -> dict[str, Any]:
        """Plain, fully resolved data."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "params": self.params,
            "dataset": self.dataset,
            "labels": self.labels,
            "noise": self.noise,
            "fingerprint": self.fingerprint,
            "protocol": self.protocol,
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        return key_of(self.identity())

    @property
    def condition(self) -> tuple[str, str, str]:
        """What a column of a table stands for: dataset, label set, noise."""
        return self.dataset, self.labels, json.dumps(self.noise, sort_keys=True)


def key_of(identity: Mapping[str, Any]) -> str:
    """16 hex digits of the sha256 of the identity as canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Plan:
    """A suite expanded: its runs, seed by seed, so that every method has one result early."""

    name: str  # of the plan: the suite's, with what the command line changed
    suite: Suite
    specs: list[RunSpec]
    titles: dict[tuple[str, str, str], str]  # condition -> how a table prints it
    told: dict[str, list[str]] = field(default_factory=dict)  # row -> what its method is told
    networks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # for the table
    tries: bool = False  # the tries of a tuned suite

    def as_json(self) -> dict[str, Any]:
        """What `table` needs, without torch and without the data."""
        conditions = list(self.titles)
        return {
            "schema": SCHEMA,
            "suite": self.name,
            "track": self.suite.track,
            "protocol": self.suite.protocol,
            "notes": self.notes,
            "tries": self.tries,
            "rows": [
                {"row": row, "method": entry.method or row, "told": self.told[row], "networks": self.networks[row]}
                for row, entry in self.suite.methods.items()
            ],
            "conditions": [self.titles[c] for c in conditions],
            "seeds": sorted({spec.seed for spec in self.specs}),
            "cells": [
                {"row": s.row, "condition": conditions.index(s.condition), "seed": s.seed, "key": s.key}
                for s in self.specs
            ],
        }


STAND_IN = ""  # name of a dataset, where the suite has none that can be used
