"""Checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nlbench.files import write_atomic
from nlbench.method import Method
from nlbench.results.store import Store
from nlbench.training.run_state import RunState


class Checkpoint:
    """A state file that is whole or not there, and that is only read back under the code that wrote it."""

    def __init__(self, store: Store, path: Path, tag: str, every_seconds: float):
        self.path, self.tag, self._store = path, tag, store
        self._every, self._saved = every_seconds, time.monotonic()

    def save(self, state: dict[str, Any]) -> None:
        write_atomic(self.path, lambda file: torch.save({**state, "tag": self.tag}, file))
        self._saved = time.monotonic()

    def save_if_due(self, state: Callable[[], dict[str, Any]]) -> None:
        if time.monotonic() - self._saved >= self._every:
            self.save(state())

    def load(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes torch raise, the answer is the same
            self._store.set_aside(self.path, f"corrupt checkpoint ({type(error).__name__})")
            return None
        if not isinstance(state, dict) or state.get("tag") != self.tag:
            self._store.set_aside(self.path, "checkpoint of other code or of another run")
            return None
        return state


def state_of(run: RunState, method: Method) -> dict[str, Any]:
    return {"method": method.state_dict(), **run.state_dict()}


def restore_state(state: dict[str, Any], run: RunState, method: Method) -> None:
    method.load_state_dict(state["method"])
    run.load_state_dict(state)
