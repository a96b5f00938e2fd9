"""The interface of a logger, and what it learns of a run. Imports neither torch nor a logger."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from nlbench.plan.spec import RunSpec
    from nlbench.results.record import RunRecord

# The metrics of an epoch by name, as history.csv has them.
Metrics = Mapping[str, int | float | None]


@dataclass(frozen=True)
class WatchedRun:
    """A run, as a logger shows it.

    Attributes:
        key: the run key. It is the same whenever and wherever the run is trained, so a logger finds
            the run again by it.
        suite: the suite that the run is trained for.
        row, method: the row of the suite, and its method.
        dataset: the name of the dataset.
        condition: dataset and labels or noise, as tables print them.
        protocol: the name of the protocol's preset, or of the suite's own protocol.
        seed, epochs: the seed, and the number of epochs.
        config: everything that can change the result of the run: method, params, dataset, labels,
            noise, protocol and seed. Plain data, in which mappings may hold mappings.
    """

    key: str
    suite: str
    row: str
    method: str
    dataset: str
    condition: str
    protocol: str
    seed: int
    epochs: int
    config: Mapping[str, Any] = field(hash=False)

    @classmethod
    def of_spec(cls, spec: RunSpec, suite: str, protocol: str) -> WatchedRun:
        """Return the run of a spec."""
        identity = spec.identity()
        return cls(
            key=spec.key,
            suite=suite,
            row=spec.row,
            method=spec.method,
            dataset=spec.condition.dataset,
            condition=spec.condition.title,
            protocol=protocol,
            seed=spec.seed,
            epochs=spec.protocol.epochs,
            config={**identity, "row": spec.row, "suite": suite},
        )

    @property
    def name(self) -> str:
        """The run in words, for example "elr · CIFAR-10N worst · seed 0"."""
        return f"{self.row} · {self.condition} · seed {self.seed}"

    @property
    def tags(self) -> list[str]:
        """Words to filter runs by, each once: method, dataset, condition, protocol and suite."""
        words = (self.method, self.dataset, self.condition, self.protocol, self.suite)
        return [word for word in dict.fromkeys(words) if word]

    def flat(self) -> dict[str, str | int | float | bool]:
        """Return `config` without mappings in it: `protocol.epochs` instead of `protocol`."""
        return dict(_flat("", self.config))


class Logger(Protocol):
    """Shows runs elsewhere while they train.

    The methods are called one after the other, in one thread. What they raise is printed once, and
    the logger is then called no more; the training goes on. docs/adding/logger.md explains how to
    write one.
    """

    def begin(self, run: WatchedRun, fresh: bool) -> Collection[int]:
        """Begin to show a run, or go on with it.

        Args:
            fresh: the run trains from its first epoch. What the logger has of an earlier training
                does not count any more.
        Returns: the epochs that the logger has already; these are not passed on again.
        """

    def epoch(self, run: WatchedRun, epoch: int, metrics: Metrics) -> None:
        """Show the metrics of an epoch, counted from 0. They may be None or not finite."""

    def ended(self, run: WatchedRun, record: RunRecord) -> None:
        """Show how a run has ended: `record.status`, `record.metrics`, `record.error_message`."""

    def close(self) -> None:
        """Write what is not written yet. Runs that have not ended will be gone on with later."""


def numbers(metrics: Metrics) -> dict[str, float]:
    """Return the metrics that have a value, without the number of the epoch."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if value is not None and name != "epoch"
    }


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str | int | float | bool]]:
    """Yield the plain values within a value, each with its path."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    elif isinstance(value, str | int | float):
        yield prefix, value
    else:
        yield prefix, str(value)
