"""What methods keep of each example and class, how much memory that takes, and in which dtype."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nlbench.data import stratified
from nlbench.data.base import Info
from nlbench.errors import Problem
from nlbench.files import in_bytes
from nlbench.plan.protocol import Protocol

if TYPE_CHECKING:
    from nlbench.method import Method

# Bytes of a number.
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Memory(NamedTuple):
    """A tensor with numbers for each example and class, which a method keeps.

    Attributes:
        name: of the buffer or parameter, such as "targets".
        per_example: how many numbers it has for an example.
        size: bytes of a number; 0 if they are in the dtype that the protocol chooses.
    """

    name: str
    per_example: int
    size: int


def memories_of(method: Method) -> tuple[Memory, ...]:
    """Return the memories of a method that was built on a task with narrow memories.

    Only what its constructor has made is seen, buffers and parameters.
    """
    task = method.task
    N, C = task.num_train, task.num_classes
    found = []
    for name, tensor in itertools.chain(method.named_buffers(), method.named_parameters()):
        if tensor.is_floating_point() and N in tensor.shape and tensor.numel() >= N * C:
            size = 0 if tensor.dtype == task.memory else tensor.element_size()
            found.append(Memory(name, tensor.numel() // N, size))
    return tuple(found)


def misfit(row: str, memories: tuple[Memory, ...], protocol: Protocol) -> Problem | None:
    """Return why a row cannot be trained with the protocol's `memory`, if it cannot."""
    wide = [memory.name for memory in memories if memory.size]
    if protocol.memory == "float32" or not wide:
        return None
    return Problem(
        ("memory",),
        f"must be float32 for {row}, got {protocol.memory}: the method keeps {' and '.join(wide)} "
        "in a dtype of its own. fix: leave out the key, or the row",
    )


@dataclass(frozen=True)
class Need:
    """How much memory a run needs, at least, for numbers of each example and class.

    Attributes:
        row: of the suite.
        dataset: its title.
        examples, classes: N and C of the training.
        memories: of the row's method.
        dtype: of those whose dtype the protocol chooses.
        predicts: whether the run ends with outputs for all training examples, whatever else it is
            asked for.
    """

    row: str
    dataset: str
    examples: int
    classes: int
    memories: tuple[Memory, ...]
    dtype: str
    predicts: bool

    @property
    def kept(self) -> int:
        """The bytes of what the method keeps."""
        own = SIZES[self.dtype]
        each = sum(memory.per_example * (memory.size or own) for memory in self.memories)
        return self.examples * each

    @property
    def predictions(self) -> int:
        """The bytes of the outputs for all training examples, after the last epoch."""
        return 4 * self.examples * self.classes if self.predicts else 0

    @property
    def on_gpu(self) -> int:
        """The bytes of a GPU that a run needs if it is trained there."""
        return self.kept + self.predictions

    def on_host(self, *, has_gpu: bool) -> int:
        """Return the bytes of the machine's memory that a run needs.

        What a checkpoint would hold is copied at the beginning of each epoch, while the copy of the
        epoch before is still there.
        """
        if has_gpu:
            return 2 * self.kept
        return max(3 * self.kept, 2 * self.kept + self.predictions)

    @property
    def fix(self) -> str:
        """Say what needs less."""
        heeds = any(memory.size == 0 for memory in self.memories)
        if heeds and self.dtype == "float32":
            return "memory: bfloat16, which halves what the method keeps, or a smaller subset"
        return "a smaller subset"

    def __str__(self) -> str:
        if not self.memories:
            return f"{self.row} predicts {self.examples:,} x {self.classes:,} numbers at its end"
        names = " and ".join(memory.name for memory in self.memories)
        numbers = sum(memory.per_example for memory in self.memories)
        dtypes = {"float64" if memory.size == 8 else "float32" for memory in self.memories}
        if all(memory.size == 0 for memory in self.memories):
            dtypes = {self.dtype}
        return (
            f"{self.row} keeps {names}, {self.examples:,} x {numbers:,} numbers in "
            f"{' and '.join(sorted(dtypes))}: {in_bytes(self.kept)}"
        )


def need_of(row: str, memories: tuple[Memory, ...], info: Info, protocol: Protocol) -> Need:
    """Return what a run of a row needs on a dataset whose training examples have been counted."""
    held = stratified.num_held_out(protocol.val_fraction, info.num_train)
    return Need(
        row=row,
        dataset=info.title,
        examples=protocol.subset or info.num_train - held,
        classes=info.num_classes,
        memories=memories,
        dtype=protocol.memory,
        predicts=not protocol.batches_per_epoch,
    )


@dataclass(frozen=True)
class Room:
    """The memory that runs have.

    Attributes:
        host: bytes of the machine; 0 if unknown.
        gpus: number of GPUs that runs are trained on, 0 for a CPU.
        gpu: bytes of the smallest of these.
        jobs: runs that go on at the same time on each device.
    """

    host: int
    gpus: int
    gpu: int
    jobs: int

    def refusals(self, needs: Sequence[Need]) -> list[str]:
        """Say which runs cannot fit and what to do, a line each; nothing if all may fit.

        Args:
            needs: of all runs to do.
        """
        host, on_gpu = self.host or sys.maxsize, self.gpus > 0
        lines = []
        for need in dict.fromkeys(needs):
            wanted = need.on_host(has_gpu=on_gpu)
            if wanted > host:
                lines.append(_refusal(need, wanted, "machine", host))
            elif on_gpu and need.on_gpu > self.gpu:
                lines.append(_refusal(need, need.on_gpu, "GPU", self.gpu))
        if lines:
            return lines

        # The largest runs may go on at the same time.
        wants = sorted((need.on_host(has_gpu=on_gpu) for need in needs), reverse=True)
        together = sum(wants[: self.jobs * max(self.gpus, 1)])
        if together > host:
            lines.append(self._together(together, "machine", host))
        wants = sorted((need.on_gpu for need in needs), reverse=True)
        together = sum(wants[: self.jobs])
        if on_gpu and together > self.gpu:
            lines.append(self._together(together, "GPU", self.gpu))
        return lines

    def _together(self, wanted: int, place: str, has: int) -> str:
        return (
            f"runs that go on at the same time need at least {in_bytes(wanted)}, and this {place} "
            f"has {in_bytes(has)}. fix: fewer --jobs{' or --gpus' * (self.gpus > 1)}"
        )


def _refusal(need: Need, wanted: int, place: str, has: int) -> str:
    return (
        f"{need}. A run on {need.dataset} needs at least {in_bytes(wanted)}, and this {place} has "
        f"{in_bytes(has)}. fix: {need.fix}"
    )
