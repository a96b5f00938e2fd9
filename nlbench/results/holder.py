"""Who holds a lock: a process, named so that no other one on any host has the same name.

A lock file has one line, `HOST PID boot=B space=N started=T`. nlbench 0.1 wrote `HOST PID` alone.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")

# Of each part that is read from a lock, because anybody can have written there.
_LONGEST = 100


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock, or held it.

    Attributes:
        pid: its number, as text.
        boot: names the start of the host's system. Hosts of one name differ in it.
        space: names the container, or other space of process numbers, that `pid` belongs to.
        started: when the process has started, in ticks since the boot. A number is used again, and
            never for the same time.
    """

    host: str
    pid: str
    boot: str = ""
    space: str = ""
    started: str = ""

    @classmethod
    def here(cls) -> Holder:
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), str(pid), _boot(), _space(), _started(pid))

    @classmethod
    def parse(cls, text: str) -> Holder | None:
        """Return the holder that a lock file names; None for an empty one."""
        words = [_printable(word) for word in text.split()]
        if not words:
            return None
        named = dict(word.split("=", 1) for word in words[2:] if "=" in word)
        return cls(
            words[0],
            words[1] if len(words) > 1 else "",
            named.get("boot", ""),
            named.get("space", ""),
            named.get("started", ""),
        )

    def line(self) -> str:
        """Return what a lock file says of this holder."""
        named = {"boot": self.boot, "space": self.space, "started": self.started}
        words = [f"{name}={value}" for name, value in named.items() if value]
        return " ".join([self.host, self.pid, *words]) + "\n"

    def __str__(self) -> str:
        return f"process {self.pid} of the host {self.host}" if self.pid else self.host

    def is_process(self, pid: int) -> bool:
        """Return whether this is the process `pid`, as it is numbered here."""
        here = Holder.here()
        if (self.host, self.pid) != (here.host, str(pid)):
            return False
        # A lock of nlbench 0.1 names no system.
        return not self.boot or (self.boot, self.space) == (here.boot, here.space)

    def lives(self, flocked: bool) -> bool | None:
        """Return whether the holder lives and is another process; None if it cannot be known here.

        Args:
            flocked: this process has the flock of the file that names the holder.
        """
        here = Holder.here()
        if self.host != here.host:
            return None
        if not self.boot:
            # Of nlbench 0.1, or of a system that names no boot. It had the flock on this host,
            # which is free again.
            return False if flocked or self.pid == here.pid else None
        # Another host of the same name, or this one before it was started again; or a container,
        # whose processes have numbers of their own.
        if (self.boot, self.space) != (here.boot, here.space):
            return None

        if self.pid == here.pid and self.started == here.started:
            return False
        now = _started_of(self.pid)
        if not now or (self.started and now != self.started):
            # It has ended, and another process may have its number.
            return False
        # It lives, and yet this process could get the flock: it may have let go of it and failed to
        # say so, or flock may not reach from one mount to another. The heartbeat tells.
        return None if flocked else True


def _printable(word: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in word[:_LONGEST])


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return ""


def _started_of(pid: str) -> str:
    return _started(int(pid)) if pid.isdecimal() else ""


def _started(pid: int) -> str:
    """Return when a process has started, in ticks since the boot; empty if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    # The name in parentheses may hold spaces and parentheses. Field 22 is the 20th one behind it.
    fields = text.rpartition(")")[2].split()
    # A zombie is a process that has ended.
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else ""
