"""What the executor uses of the package ray, with tasks that end as a test says."""

import itertools
import time
from types import SimpleNamespace


class RayError(Exception):
    """The base of Ray's errors."""


NAMES = (
    "OutOfMemoryError",
    "NodeDiedError",
    "ObjectLostError",
    "LocalRayletDiedError",
    "WorkerCrashedError",
    "TaskCancelledError",
)


class RayTaskError(RayError):
    """What a task has raised."""

    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Call:
    """A task that was begun: its options and arguments, and a reference to its result."""

    def __init__(self, function, options, args):
        self.name, self.options, self.args = function.__name__, options, args
        self.cancelled = False


class Remote:
    """A function or class as `ray.remote` returns it."""

    def __init__(self, ray, target, options=None):
        self._ray, self._target, self._options = ray, target, options or {}

    def options(self, **options):
        return Remote(self._ray, self._target, options)

    def remote(self, *args):
        if isinstance(self._target, type):
            return Actor(self._target(*args))
        call = Call(self._target, self._options, args)
        self._ray.calls.append(call)
        return call


class Given:
    """A reference to a value that is there, or will be."""

    def __init__(self, value):
        self.value = value


class Actor:
    """An actor whose methods are called at once."""

    def __init__(self, actor):
        self._actor = actor

    def __getattr__(self, name):
        method = getattr(self._actor, name)
        return SimpleNamespace(remote=lambda *args: Given(method(*args)))


class FakeRay:
    """Plays Ray.

    Attributes:
        calls: the tasks that were begun, in this order.
        late: how often what an actor returns is waited for in vain.

    Args:
        answer: called with each task when it is waited for; returns its reply, or an error to
            raise. None: it goes on.
        nodes: names and CPUs of the nodes.
    """

    def __init__(self, answer, nodes=(("n1", 1), ("n2", 1))):
        self.calls, self.late = [], 0
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        for name in NAMES:
            setattr(self.exceptions, name, type(name, (RayError,), {}))
        self._answer = answer
        self._replies = {}
        self.alive = {name: {"CPU": cpus} for name, cpus in nodes}
        strategy = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
        self.util = SimpleNamespace(scheduling_strategies=strategy)
        self.most_at_once = 0

    def nodes(self):
        return [
            {"NodeID": name, "Alive": True, "Resources": resources}
            for name, resources in self.alive.items()
        ]

    def remote(self, *target, **options):
        if not target:
            return lambda function: Remote(self, function)
        return Remote(self, *target)

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "head")

    def put(self, value):
        return Given(value)

    def wait(self, refs, num_returns=1, timeout=None):
        if isinstance(refs[0], Given):
            self.late -= 1
            return (refs, []) if self.late < 0 else ([], refs)
        self.most_at_once = max(self.most_at_once, len(refs))
        for call in refs:
            if call not in self._replies and call.name == "nlbench_run":
                reply = self._answer(call)
                if reply is not None:
                    self._replies[call] = reply
        if not self._replies:
            time.sleep(0.01)
        done = [call for call in refs if call in self._replies or call.name != "nlbench_run"]
        return list(itertools.islice(done, num_returns)), []

    def get(self, ref, timeout=None):
        reply = self._replies[ref] if isinstance(ref, Call) else ref.value
        if isinstance(reply, Exception):
            raise reply
        return reply

    def cancel(self, ref, force, recursive):
        ref.cancelled = True
        self._replies.setdefault(ref, self.exceptions.TaskCancelledError("cancelled"))
