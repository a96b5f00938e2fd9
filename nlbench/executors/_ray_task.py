"""The functions that Ray calls on its nodes.

Each is made inside another function, so that Ray sends its code. A node that has no nlbench, or
another version of it, can then say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def make_function() -> Callable[..., Any]:
    """Return the function of a run's task. All that it uses is imported within it."""

    def nlbench_run(wanted, packed, shares, contents, mailbox, number):
        import contextlib
        import importlib.metadata
        import pickle
        import socket
        from dataclasses import replace

        import ray

        node = ray.get_runtime_context().get_node_id()
        place = (node, socket.gethostname())

        def report(hook, values):
            # Nobody waits for it: a display that lags behind must not hold up a training. It is
            # packed, because the mailbox would import torch to unpack it, and give nothing
            # meanwhile.
            return mailbox.put.remote(pickle.dumps((number, hook, values)))

        report("at", (place[1],))
        fix = f"pip install 'nlbench[ray]=={wanted}' there"
        try:
            found = importlib.metadata.version("nlbench")
            if found != wanted:
                why = f"it has nlbench {found}, and the sweep is of nlbench {wanted}: {fix}"
                return place, "refused", why
            from nlbench.errors import UserError
            from nlbench.executors import _node
        except ImportError as error:
            return place, "refused", f"nlbench cannot be imported there ({error}): {fix}"

        task = replace(pickle.loads(packed), slots=shares.get(node, 1))
        try:
            result = _node.train(task, lambda path: ray.get(contents[path]), report)
        except _node.Refused as error:
            return place, "refused", str(error)
        except (OSError, UserError) as error:
            return place, "error", error
        # Reports arrive in their order. So all are there when the last one is.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(report("at", (place[1],)), timeout=2)
        return place, "ended", result

    return nlbench_run


def make_mailbox() -> type:
    """Return the class of the actor that keeps the packed reports of runs until they are taken."""

    class NlbenchReports:
        def __init__(self) -> None:
            self._letters: list[bytes] = []

        def put(self, letter: bytes) -> None:
            self._letters.append(letter)

        def take(self) -> list[bytes]:
            letters, self._letters = self._letters, []
            return letters

    return NlbenchReports


def make_forgetting() -> Callable[[str], None]:
    """Return a function that calls `_node.forget`."""

    def nlbench_forget(owner: str) -> None:
        from nlbench.executors import _node

        _node.forget(owner)

    return nlbench_forget
