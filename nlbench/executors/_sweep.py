"""The sweep over runs that other processes train: which is begun next, and when all stop."""

from __future__ import annotations

import collections
import signal
import time
from collections.abc import Callable, Sequence

from nlbench.errors import BudgetSpent
from nlbench.executors._budget import Budget
from nlbench.executors._deaths import WorkerDied, is_of_the_store
from nlbench.executors._messages import Ended, Message, Raised, Reported, Warned
from nlbench.executors._processes import Run, Runs, ServerDied
from nlbench.executors._stopping import StopSignals
from nlbench.executors.base import Listener, Todo, age_of
from nlbench.executors.local import POLL_SECONDS
from nlbench.results.record import RunRecord

# How long the runs may take to end a step and to write a checkpoint: after Ctrl-C, where somebody
# waits, and after another signal or at the end of the time.
CTRL_C_SECONDS = 5.0
STOP_SECONDS = 9.0


class Sweep:
    """Gives runs to free places until all have ended, a signal has come, or the time is over."""

    def __init__(
        self,
        todo: Sequence[Todo],
        runs: Runs,
        signals: StopSignals,
        budget: Budget,
        listener: Listener,
    ):
        self._ready = collections.deque(todo)
        # Runs that other processes hold, and when they were last tried while nothing else was left.
        self._held: list[Todo] = []
        self._asked = 0.0
        # Keys of the runs that were held when they were first tried.
        self._late: set[str] = set()
        # Runs that have lost their process together with the fork server, perhaps by their own
        # doing. Each is tried once more, with no other run beside it.
        self._suspects: collections.deque[Todo] = collections.deque()
        self._tried: set[str] = set()
        # Number of runs that have ended because all are to stop.
        self._stopped = 0

        self._runs = runs
        self._signals = signals
        self._budget = budget
        self._listener = listener

    def share_out(self) -> None:
        """Train the runs, and pass on their reports, until all have ended.

        Raises: KeyboardInterrupt, Terminated or BudgetSpent, when the runs have stopped.
        """
        runs = self._runs
        while self._signals.asked is None and not self._budget.must_stop():
            self._begin()
            if not (runs.going or self._held or self._ready or self._suspects):
                return
            if not runs.going and self._ready:
                # There are free places, and too little time.
                break
            if not runs.going and not runs.options.leave_held:
                self._budget.waited()
                self._listener.on_wait(len(self._held))
                runs.store.warn_of_holders([todo.spec.key for todo in self._held])
            self._handle_messages(min(POLL_SECONDS, self._budget.seconds_left()))
        self._stop()

    def _begin(self) -> None:
        runs = self._runs
        if self._suspects:
            if not runs.going:
                self._begin_run(self._suspects.popleft(), wait=True)
            return

        waited = time.monotonic() - self._asked
        if self._held and not self._ready and runs.free and waited >= POLL_SECONDS:
            self._ready.extend(self._held)
            self._held, self._asked = [], time.monotonic()
        while self._ready and runs.free and self._budget.allows(self._ready[0].spec):
            following = self._ready.popleft()
            if not self._is_done(following):
                self._begin_run(following, wait=self._may_wait())

    def _begin_run(self, todo: Todo, wait: bool) -> None:
        self._runs.begin(todo, wait)
        self._budget.begun(todo.spec)

    def _is_done(self, todo: Todo) -> bool:
        """Report a run that another process has trained since the work was planned."""
        store, key = self._runs.store, todo.spec.key
        # The process of a run looks again, while it holds the run. This saves the process.
        if age_of(store, key) == todo.age or (record := store.read(key)) is None:
            return False
        store.ended[key] = record
        self._listener.on_finish(todo.spec, record)
        return True

    def _may_wait(self) -> bool:
        """Return whether the next run may wait for a helper network."""
        # While other runs are left, none need wait.
        if self._runs.options.leave_held:
            return all(todo.spec.key in self._late for todo in self._ready)
        return not self._ready

    def _handle_messages(self, seconds: float) -> None:
        # With a time limit, because runs that are held have to be tried again.
        try:
            for run, message in self._runs.messages(self._signals.wake, seconds):
                self._handle(run, message)
        except ServerDied:
            self._restart()

    def _handle(self, run: Run, message: Message) -> None:
        if isinstance(message, Warned):
            self._runs.store.warn(message.line)
        elif isinstance(message, Reported):
            self._report(run, message)
        elif isinstance(message, Raised):
            error = message.error
            if is_of_the_store(error):
                raise error
            # For example a method that has closed the files of its process.
            self._ended(run, self._runs.record_of_dead(run, error))
        else:
            self._ended(run, message.record)

    def _report(self, run: Run, message: Reported) -> None:
        self._budget.note(run.todo.spec, message.hook, message.values)
        # By name, because the caller's listener overrides the hook that the run named.
        hook: Callable[..., None] = getattr(self._listener, message.hook)
        hook(run.todo.spec, *message.values)

    def _ended(self, run: Run, record: RunRecord | None) -> None:
        self._runs.finish(run)
        if record is None:
            # It has waited for its helper network, so another process holds the run itself.
            if run.waits and self._runs.options.leave_held:
                return
            self._late.add(run.todo.spec.key)
            self._held.append(run.todo)
            return
        self._budget.ended(run.todo.spec)
        self._runs.store.ended[run.todo.spec.key] = record
        self._listener.on_finish(run.todo.spec, record)
        # The runs that are held may have waited for what this one has made.
        self._ready.extendleft(reversed(self._held))
        self._held = []

    def _restart(self) -> None:
        """Go on with another fork server after one has died, perhaps by the doing of a run."""
        again = []
        for run in self._runs.restart():
            todo = run.todo
            if todo.spec.key in self._tried:
                error = WorkerDied(
                    f"the method {todo.spec.method} has twice ended the process that starts the "
                    "runs, its parent"
                )
                self._ended(run, self._runs.record_of_dead(run, error))
                continue
            self._runs.finish(run)
            self._tried.add(todo.spec.key)
            self._suspects.append(todo)
            again.append(f"{todo.spec.row} seed {todo.spec.seed}")
        if again:
            self._runs.store.warn(
                "the process that starts the runs was ended; each run that was going on is tried "
                f"once more, alone: {', '.join(again)}"
            )

    # ---- Stopping -------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Let the runs write a checkpoint, as far as the time allows, and raise what was asked."""
        asked = self._signals.asked
        seconds = CTRL_C_SECONDS if asked is signal.SIGINT else STOP_SECONDS
        if asked is None:
            seconds = min(seconds, self._budget.seconds_left())
        if asked is not None or self._runs.going:
            self._listener.on_stop(announced(asked))

        self._runs.stop()
        deadline = time.monotonic() + seconds
        while not self._signals.again and time.monotonic() < deadline:
            # Processes that are not there yet have nothing to write.
            if not any(run.pid for run in self._runs.going.values()):
                break
            try:
                for run, message in self._runs.messages(self._signals.wake, 0.1):
                    self._handle_last(run, message)
            except ServerDied:
                break
        self._signals.raise_if_asked()

        waiting = len(self._held) + len(self._ready) + len(self._suspects)
        left = waiting + len(self._runs.going) + self._stopped
        if left:
            raise BudgetSpent(left, self._budget.was_of_use)

    def _handle_last(self, run: Run, message: Message) -> None:
        if isinstance(message, Reported) and message.hook == "on_stopped":
            self._report(run, message)
        if not isinstance(message, Ended):
            return
        self._runs.finish(run)
        # A run that was ended by the signal has not failed.
        if message.record is None or message.record.status == "failed":
            self._stopped += 1
            return
        self._budget.ended(run.todo.spec)
        self._runs.store.ended[run.todo.spec.key] = message.record
        self._listener.on_finish(run.todo.spec, message.record)


def announced(asked: signal.Signals | None) -> str:
    """Return what is said when the runs are to stop."""
    line = "stopping; finished runs are kept."
    if asked is signal.SIGINT:
        return f"{line} Press Ctrl-C again to stop at once."
    if asked is None:
        return f"the time of --budget is nearly over: {line}"
    return f"{asked.name} received: {line}"
