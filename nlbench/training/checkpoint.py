"""Files from which a stopped training goes on, and what a run has produced so far."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nlbench.files import refuse_bomb, write_atomic
from nlbench.results.record import Metrics, Timing
from nlbench.results.schema import LaterVersion, Migrations, brought_up
from nlbench.results.state_files import damage_of, write_with_checksum
from nlbench.results.store import Store

# The version of the file's content. Version 1 does not state it.
SCHEMA = 1
MIGRATIONS: Migrations = {}


def _no_time() -> Timing:
    return {"prepare": 0.0, "fits": 0.0, "train": 0.0, "evaluate": 0.0}


@dataclass
class Progress:
    """The results of a run so far, apart from its networks.

    Attributes:
        code: hash of the code that trains it.
        warnings: of the dataset's files and of the method, for the record.
        history: the metrics of each epoch that is done.
        one_class: whether all test images were predicted as one class, for each epoch.
        seconds: the time spent so far, also before a resume.
    """

    code: str
    warnings: list[str]
    history: list[Metrics] = field(default_factory=list)
    one_class: list[bool] = field(default_factory=list)
    seconds: Timing = field(default_factory=_no_time)

    def add(self, metrics: Metrics, train_seconds: float, evaluate_seconds: float) -> None:
        """Add an epoch that was trained and evaluated."""
        self.history.append(metrics)
        self.seconds["train"] += train_seconds
        self.seconds["evaluate"] += evaluate_seconds

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        return {"history": self.history, "seconds": self.seconds, "one_class": self.one_class}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.history = state["history"]
        self.seconds = state["seconds"]
        self.one_class = state["one_class"]


class Checkpoint:
    """A file of tensors and plain data, which appears whole or not at all, with its checksum.

    Args:
        tag: names what the state belongs to, for example {"run": ..., "code": ...}, and is saved
            with it. A file with another tag is not used: a training must not go on from the state
            of another run, or from one that other code has made.
        every_seconds: `age` at which `is_due` becomes true.
    """

    def __init__(
        self, store: Store, path: Path, tag: Mapping[str, str | int], every_seconds: float = 0.0
    ):
        self.path = path
        self._store = store
        self.tag = dict(tag)
        self._every = every_seconds
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Return whether it is time to save again."""
        return self.age() >= self._every

    def age(self) -> float:
        """Return the seconds since the last save, or since this object was made."""
        return time.monotonic() - self._saved

    def save(self, state: dict[str, Any]) -> None:
        """Write `state`, a dictionary that torch.load reads with weights_only."""
        self._store.require_ready(final=self.tag.get("state") == "trained")
        # Written to another name first: a process that is killed here leaves the old checkpoint.
        tagged = {**state, "tag": self.tag}
        if SCHEMA > 1:
            tagged["schema"] = SCHEMA
        write_atomic(
            self.path, lambda file: write_with_checksum(file, functools.partial(torch.save, tagged))
        )
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the saved state with tensors on the CPU, or None if there is none to go on from.

        A file that is damaged or has another tag is renamed, and the store warns of it.
        """
        if not os.path.lexists(self.path):
            return None

        state, reason = self._read()
        if not reason:
            return state
        self._store.set_aside(self.path, f"{self._name} cannot be used ({reason})")
        return None

    def _read(self) -> tuple[dict[str, Any], str]:
        """Return the state in the file, and why it cannot be used; else an empty string."""
        reason = damage_of(self.path)
        if reason:
            return {}, reason
        # A file that somebody made can have a right checksum, and make torch raise almost any
        # exception.
        try:
            refuse_bomb(self.path)
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            return {}, f"torch cannot read it, {type(error).__name__}"
        reason = self._other_owner(state)
        if reason:
            return {}, reason
        try:
            return brought_up(dict(state), self._name, SCHEMA, MIGRATIONS), ""
        except (LaterVersion, ValueError) as error:
            return {}, str(error)

    @property
    def _name(self) -> str:
        return "the helper network" if "helper" in self.tag else "the checkpoint"

    def _other_owner(self, state: object) -> str:
        """Return whose state this is, if it is not that of this training; else an empty string."""
        tag = state.get("tag") if isinstance(state, dict) else None
        if not isinstance(tag, dict):
            return "it is no state of a training"
        for name, value in self.tag.items():
            if tag.get(name) == value:
                continue
            # One record must not have epochs of two versions of the code.
            if name == "code":
                return "it was made by another version of the code"
            return f"it belongs to {name} {tag.get(name)}, and not to {name} {value}"
        return ""
