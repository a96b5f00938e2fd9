"""What the process of a run and the process of the sweep tell each other."""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nlbench.errors import UserError
from nlbench.executors.base import Todo
from nlbench.results.record import RunRecord
from nlbench.results.store import Store, Warn
from nlbench.training.context import RunOptions

OpenStore = Callable[[Warn], Store]


@dataclass(frozen=True)
class Order:
    """What the process of a run is to do, see `Trainer.attempt`. The first device is its own.

    Attributes:
        open_store: opens the store; it gets the function that is called with warnings.
    """

    todo: Todo
    wait: bool
    options: RunOptions
    open_store: OpenStore


@dataclass(frozen=True)
class Reported:
    """A call of a Listener's hook for the run. `values` are the arguments after the spec."""

    hook: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Warned:
    """A warning of the store."""

    line: str


@dataclass(frozen=True)
class Ended:
    """The end of the run. The record is None if another process holds the run."""

    record: RunRecord | None


@dataclass(frozen=True)
class Raised:
    """An error that is not the run's own: of the store, or of the disk."""

    error: OSError | UserError


Message = Reported | Warned | Ended | Raised

# Before each message: a mark, and the number of bytes.
_HEAD = struct.Struct("4sQ")
_MARK = b"nlb1"
_MOST_BYTES = 1 << 30


class Link:
    """One end of the connection between the two processes.

    multiprocessing's Connection waits for the rest of a message that has begun. A method that
    writes into open files could so make the sweep wait for good; this class never waits for a rest.
    """

    def __init__(self, end: socket.socket):
        self._end = end
        self._unread = b""

    def fileno(self) -> int:
        """Return the file descriptor, to wait for."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def send(self, message: object) -> None:
        """Send a message. Raises OSError if the other end is closed."""
        data = pickle.dumps(message)
        self._end.sendall(_HEAD.pack(_MARK, len(data)) + data)

    def receive(self) -> list[Any]:
        """Wait until something has come, and return the messages that are complete.

        Raises: EOFError at the end; any Exception for something that was not sent by `send`.
        """
        data = self._end.recv(1 << 16)
        if not data:
            raise EOFError
        self._unread += data

        messages = []
        while len(self._unread) >= _HEAD.size:
            mark, size = _HEAD.unpack_from(self._unread)
            if mark != _MARK or size > _MOST_BYTES:
                raise ValueError("not a message")
            end = _HEAD.size + size
            if len(self._unread) < end:
                break
            messages.append(pickle.loads(self._unread[_HEAD.size : end]))
            self._unread = self._unread[end:]
        return messages

    def receive_one(self) -> Any:
        """Wait for one message, and return it. Raises as `receive`."""
        while True:
            if messages := self.receive():
                return messages[0]
