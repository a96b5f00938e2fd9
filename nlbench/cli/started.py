"""When this process was started."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/self/stat")

# Where the system does not say it, the time of this import stands for the start.
_IMPORTED = time.monotonic()


def started() -> float:
    """Return when the process was started, on the monotonic clock."""
    try:
        # The second field is the name of the program in brackets, and may hold anything.
        fields = _STAT.read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    except (OSError, AttributeError, ValueError, IndexError):
        return _IMPORTED
