"""Notice writes to what a method may only read: labels, images, index and logits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from nlbench.method import Batch, Task


class _Kept(NamedTuple):
    """A tensor of a batch, and a copy of its values."""

    label: str
    batch: Batch
    attribute: str
    values: Tensor


class ReadOnly:
    """Compare tensors before and after each hook of a method.

    Attributes:
        written: what was written to, for example "batch.labels" -> where and how, the first time.

    Args:
        now: returns the place of the training, for example "epoch 0, step 3".
    """

    def __init__(self, now: Callable[[], str]):
        self.written: dict[str, str] = {}
        self._now = now
        self._kept: list[_Kept] = []

    def remember(self, batch: Batch) -> None:
        """Compare the tensors of `batch` after each hook, until `forget_batches`."""
        for name in ("images", "labels", "index"):
            values = getattr(batch, name).clone()
            self._kept.append(_Kept(f"batch.{name}", batch, name, values))

    def forget_batches(self) -> None:
        self._kept.clear()

    @contextlib.contextmanager
    def around(
        self,
        hook: str,
        task: Task | None,
        tensors: Sequence[tuple[str, Tensor]] = (),
        batches: Sequence[Any] = (),
    ) -> Iterator[None]:
        """Compare the named tensors, all batches and task.labels before and after a hook.

        Labels of the task that were changed are put right again.
        """
        # A batch of run.batch() is remembered already; one that the method has made is not.
        known = {id(kept.batch) for kept in self._kept}
        for batch in batches:
            if isinstance(batch, Batch) and id(batch) not in known:
                self.remember(batch)

        labels = None if task is None else task.labels.clone()
        copies = [(label, tensor, tensor.detach().clone()) for label, tensor in tensors]

        yield

        for label, tensor, before in copies:
            self._compare(hook, label, before, tensor.detach())
        for kept in self._kept:
            self._compare(hook, kept.label, kept.values, getattr(kept.batch, kept.attribute))
        if task is not None and labels is not None:
            self._compare(hook, "task.labels", labels, task.labels)
            # Put right again, so that one defect does not fail all checks.
            if task.labels.shape == labels.shape:
                task.labels.copy_(labels)
            else:
                task.labels = labels

    def _compare(self, hook: str, label: str, before: Tensor, after: Tensor) -> None:
        if before.shape != after.shape:
            seen = f"shape {tuple(before.shape)} became {tuple(after.shape)}"
        else:
            # NaN differs from itself.
            differs = before.nan_to_num() != after.nan_to_num()
            if not differs.any():
                return

            place = differs.nonzero()[0].tolist()
            at = tuple(place)
            seen = f"at {place}: {before[at].item():.6g} became {after[at].item():.6g}"

        places = [f"in `{hook}`", self._now()]
        where = ", ".join(filter(None, places))
        # The first write explains those that follow.
        self.written.setdefault(label, f"{where}: {seen}")
