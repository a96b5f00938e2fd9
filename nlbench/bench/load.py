"""Notice other programs that take cores away while something is timed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch


class Work(NamedTuple):
    """Seconds of work at one moment.

    Attributes:
        clock: on the clock.
        machine: of all cores since the machine started.
        own: of this process since it started.
    """

    clock: float
    machine: float
    own: float


# The work before and after a piece of time; None where the system does not report it.
Span = tuple[Work | None, Work | None]


def work_now() -> Work | None:
    """Return the work done until now, or None where the system does not report it."""
    try:
        # Without guest and guest_nice, the last two fields: user and nice contain them.
        fields = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, irq, softirq, stolen = map(int, fields)
    ticks = user + nice + system + irq + softirq + stolen
    return Work(time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


def busy_elsewhere(spans: Iterable[Span]) -> float | None:
    """Return how many cores other programs kept busy during these spans.

    None if it is not known, or if the time is too short.
    """
    clock = 0.0
    others = 0.0
    for before, after in spans:
        if before and after:
            clock += after.clock - before.clock
            others += (after.machine - before.machine) - (after.own - before.own)
    # The system counts in ticks of 10 ms.
    return max(0.0, others / clock) if clock > 0.1 else None


def crowded(cores: float | None) -> bool:
    """Return whether other programs leave fewer cores than torch has threads.

    The others keep `cores` busy. With None, for not known, the answer is False.
    """
    if cores is None:
        return False

    # A thread that waits for a core makes the others wait for it: torch's parallel regions then
    # take milliseconds instead of microseconds, while code on one thread is hardly slower. So even
    # ratios are wrong.
    left = (os.cpu_count() or 1) - cores
    return left < torch.get_num_threads() - 0.15
