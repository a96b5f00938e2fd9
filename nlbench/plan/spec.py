"""The runs of a suite as typed values: Condition, RunSpec with its key, and Plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlbench.data.places import FolderOptions
from nlbench.files import short_hash
from nlbench.plan.memories import Need
from nlbench.plan.protocol import Protocol
from nlbench.plan.suite_file import Suite

# The version of what a run key hashes. Raise it when a value keeps its name but changes its
# meaning.
SCHEMA = 1

# The version of strong views, see docs/records.md. Raise it when another view comes of the same
# draws, or other draws of the same seed. The first one was part of no key.
STRONG_VIEWS = 2

# The version of what decoding an image file gives, see docs/records.md. Raise it when other pixels
# come of the same file. The first one, which decodes every picture in full, is part of no key.
DECODING = 2

# A noise rate that is not given, but estimated from the run's own training labels.
ESTIMATE = "estimate"

# Name of the dataset that is checked against when the suite has none that can be used.
STAND_IN = ""


@dataclass(frozen=True)
class Told:
    """Privileged information that a suite gives itself, in place of what nlbench measures.

    Attributes:
        identity: what counts for a result: a noise rate, ESTIMATE, or "sha256:..." of the file of
            a transition matrix.
        path: that file, else "".
    """

    identity: float | str
    path: str = field(default="", compare=False)


# In place of a value that was reported as wrong, so that it is not reported as missing as well.
REFUSED = Told("refused")


@dataclass(frozen=True)
class Condition:
    """A dataset with the labels to train on. A table has a column for each condition.

    Two conditions are equal when dataset, labels and noise are. It can be the key of a mapping.

    Attributes:
        labels: the dataset's label set; "clean" when noise is drawn.
        noise: every parameter of the noise, without the path of its file; None when none is drawn.
        title: how a table prints it.
        noise_path: the file of a noise that reads one, such as `file`. Its digest is in `noise`.
        data_path: the folder of a dataset that a suite locates, else "". Of `hf` owner/name.
        folder_options: what a suite says about a folder. The fingerprint holds which images and
            labels these give. Of `hf` the revision is a commit.
        told: what the suite gives in place of measured privileged information; see
            `plan.told`.
    """

    dataset: str
    labels: str
    # A dict has no hash. Equality still compares it.
    noise: dict[str, Any] | None = field(hash=False)
    title: str = field(default="", compare=False)
    noise_path: str = field(default="", compare=False)
    data_path: str = field(default="", compare=False)
    folder_options: FolderOptions = field(default=FolderOptions(), compare=False)
    told: dict[str, Told] = field(default_factory=dict, hash=False)

    @property
    def noise_kind(self) -> str:
        """The kind of the noise, "" where none is drawn."""
        return "" if self.noise is None else str(self.noise["kind"])


@dataclass(frozen=True)
class RunSpec:
    """One run.

    Attributes:
        row: the suite's name for the method's row. It is not part of the key.
        method: the method's name in the registry.
        params: every hyperparameter of the method.
        fingerprint: hash of the decoded data and, for human labels, of the label set.
        protocol: with a precision that is not "auto", and with `weights` as "", "imagenet",
            "pretrained" or the "sha256:..." of a file.
        weights_path: the file of those weights, else "".
        weights_name: where that file comes from, if the suite says it by another name than a path,
            for example "hf-hub:OWNER/NAME@COMMIT".
        told: of the suite's own privileged information, the part that the method declares.
        strong_views: the version of the strong views that the run uses; 0 where it uses none.
        decoding: the version of how its image files are decoded: DECODING where large pictures are
            decoded to a part of their size; 0 where all are decoded in full, and where the images
            are no files.
    """

    row: str
    method: str
    params: dict[str, object]
    condition: Condition
    fingerprint: str
    protocol: Protocol
    seed: int
    weights_path: str = ""
    weights_name: str = ""
    told: dict[str, Told] = field(default_factory=dict)
    strong_views: int = 0
    decoding: int = 0

    def identity(self) -> dict[str, object]:
        """Return everything that can change the run's result, and nothing else, as plain data."""
        values: dict[str, object] = {
            "schema": SCHEMA,
            "method": self.method,
            "params": self.params,
            "dataset": self.condition.dataset,
            "labels": self.condition.labels,
            "noise": self.condition.noise,
            "fingerprint": self.fingerprint,
            "protocol": self.protocol.identity(),
            "seed": self.seed,
        }
        # Added in version 0.3. Left out where a suite gives none, so that existing run keys do not
        # change.
        if self.told:
            values["told"] = {name: told.identity for name, told in self.told.items()}
        # Added in version 0.3, with the second version of these views.
        if self.strong_views:
            values["strong_views"] = self.strong_views
        # Added in version 0.3, with the second version of decoding.
        if self.decoding:
            values["decoding"] = self.decoding
        # Added in version 0.4. Only a dataset of the Hugging Face hub has one.
        if self.condition.folder_options.revision:
            values["commit"] = self.condition.folder_options.revision
        return values

    @property
    def key(self) -> str:
        """The name of the run's record: the hash of its identity."""
        return key_of(self.identity())


def key_of(identity: Mapping[str, object]) -> str:
    """Return 16 hex digits of the sha256 of `identity` as canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return short_hash(text.encode())


def differing_value(one: object, other: object, name: str = "") -> str:
    """Return the name of the first value in which two specs differ, such as "params.lam"; or ""."""
    if one == other:
        return ""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return name
    for key in sorted({*one, *other}):
        found = differing_value(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))
        if found:
            return found
    return ""


@dataclass
class Plan:
    """A suite expanded into its runs.

    Attributes:
        name: the suite's name, with what the command line changed.
        specs: the runs seed by seed, so that every method has a result early.
        conditions: in the suite's order, which is the order of a table's columns.
        told: row -> the privileged information that its method declares.
        networks: row -> the number of networks that its method trains.
        needs: (row, dataset) -> how much memory a run needs.
        notes: sentences to print below the table.
        tries: whether these are the tries of a tuned suite.
    """

    name: str
    suite: Suite
    specs: list[RunSpec]
    conditions: list[Condition]
    told: dict[str, list[str]] = field(default_factory=dict)
    networks: dict[str, int] = field(default_factory=dict)
    needs: dict[tuple[str, str], Need] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tries: bool = False

    def as_json(self) -> dict[str, object]:
        """Return what `nlbench table` needs. It then works without torch and without the data."""
        position = {condition: i for i, condition in enumerate(self.conditions)}
        # `nlbench table` also reads plans that earlier versions wrote, so these names stay.
        return {
            "schema": SCHEMA,
            "suite": self.name,
            "track": self.suite.track,
            "protocol": self.suite.protocol,
            "notes": self.notes,
            "tries": self.tries,
            "rows": [
                {
                    "row": row,
                    "method": entry.method or row,
                    "told": self.told[row],
                    "networks": self.networks[row],
                }
                for row, entry in self.suite.methods.items()
            ],
            "conditions": [condition.title for condition in self.conditions],
            "seeds": sorted({spec.seed for spec in self.specs}),
            "cells": [
                {
                    "row": spec.row,
                    "condition": position[spec.condition],
                    "seed": spec.seed,
                    "key": spec.key,
                }
                for spec in self.specs
            ],
        }
