"""Train runs one after the other in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from nlbench.data import inspect
from nlbench.data.cache import CacheNotWritten
from nlbench.data.changes import DataChanged
from nlbench.data.decode import BrokenImage
from nlbench.errors import BudgetSpent, DataError, StoreError
from nlbench.executors._budget import Budget
from nlbench.executors._stopping import StopSignals
from nlbench.executors.base import Todo, age_of
from nlbench.files import NotWritten
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.training.context import FitHeld, Listener, RunOptions
from nlbench.training.pulse import Stopped
from nlbench.training.record import failed
from nlbench.training.run_data import RunData, load_data
from nlbench.training.train import train

# Between two tries of the runs that other processes hold.
POLL_SECONDS = 1.0


class Trainer:
    """Trains runs one after the other, and keeps data for the next run that needs the same.

    Args:
        alone: the process is there for one run. Then every exception is an error of the run, also
            KeyboardInterrupt, which cannot come from the user.
    """

    def __init__(self, options: RunOptions, store: Store, listener: Listener, alone: bool = False):
        self._options = options
        self._of_the_run: tuple[type[BaseException], ...] = (Exception, SystemExit, GeneratorExit)
        if alone:
            self._of_the_run = (BaseException,)
        self._store = store
        self._listener = listener
        self._data: dict[tuple[object, ...], RunData] = {}

    def attempt(self, todo: Todo, wait: bool) -> RunRecord | None:
        """Train a run while holding its lock, and return its record.

        If another process has trained it since it was planned, return that record. An error of the
        run becomes its record, or is raised with the option `debug`.

        Args:
            wait: wait for a helper network that another process trains.
        Returns: None if another process holds the run or, unless `wait`, such a helper network.
        """
        spec = todo.spec
        options = replace(self._options, wait=wait)
        with self._store.lock(spec.key) as mine:
            if not mine:
                return None

            # Another process may have trained it since the work was planned. Then even a run that
            # was stale or had failed is not trained a second time.
            if age_of(self._store, spec.key) != todo.age and (record := self._store.read(spec.key)):
                return record

            self._listener.on_start(spec)
            try:
                data = self._data_of(spec)
                # Nothing of a run may be written that was trained on other data than its key says.
                with self._store.writing_if(data.watched.require_same):
                    return train(spec, data, options, self._store, self._listener)
            except FitHeld:
                self._listener.on_postpone(spec)
                return None
            # Neither is an error of the run: the disk, or the folder of the store.
            except (Stopped, NotWritten, CacheNotWritten, StoreError):
                raise
            # One method that fails must not end the other runs of a sweep.
            except self._of_the_run as error:
                if options.debug:
                    raise
                if isinstance(error, DataChanged) and not self._sees_all_changes(spec):
                    self._store.set_checkpoint_aside(spec.key, "its data was changed")
                # While a sweep stops, the processes that decode images may be ended as well.
                if self._listener.stopping:
                    raise Stopped from error
                record = failed(spec, self._in_full(error, spec), options)
                keep_or_write(self._store, record)
                return record

    def _sees_all_changes(self, spec: RunSpec) -> bool:
        """Return whether a checkpoint of the run cannot hold epochs on data that was changed."""
        data = self._data.get(self._part(spec))
        return data is None or data.watched.sees_all

    def _in_full(self, error: BaseException, spec: RunSpec) -> BaseException:
        """Return the error of a run. Of broken images it names all, and not only the first."""
        if not isinstance(error, BrokenImage):
            return error
        data = self._data_of(spec)
        scored = [images for images, _ in data.scored.values()]
        found = inspect.broken([data.train_images, data.val_images, data.test_images, *scored])
        # The file may have been mended meanwhile.
        if len(found) < 2:
            return DataError(str(error))
        heading = f"{len(found)} images cannot be used; mend them or take them out:"
        return DataError("\n  ".join([heading, *found]))

    def _part(self, spec: RunSpec) -> tuple[object, ...]:
        """Return everything that `load_data` depends on."""
        protocol = spec.protocol
        return spec.condition, spec.seed, protocol.val_fraction, protocol.subset, protocol.stratify

    def _data_of(self, spec: RunSpec) -> RunData:
        part = self._part(spec)
        if part in self._data:
            # Of an earlier run. A file may have been changed since.
            try:
                self._data[part].watched.require_same(final=True)
            except DataChanged:
                del self._data[part]
        if part not in self._data:
            # Free the old data before the new are read: both may be large.
            self._data.clear()
            self._listener.on_phase(spec, "reading the data")
            self._data[part] = load_data(spec, self._options.data_dir)
        return self._data[part]


def keep_or_write(store: Store, record: RunRecord) -> None:
    """Write the record of a failed run, unless the run has an older one that is a result.

    A finished record stays until a better one is whole: the failure may come from code that has
    changed since.
    """
    older = store.read(record.key)
    if older is None or older.status == "failed":
        store.write(record, [])


def execute(todo: Sequence[Todo], options: RunOptions, store: Store, listener: Listener) -> None:
    """Train every run of `todo`, last those that another process holds. See `base.Executor`.

    Raises: KeyboardInterrupt after Ctrl-C, Terminated after another signal, BudgetSpent at the end
        of the time. The run has then ended a step and written a checkpoint. A second signal does
        not wait for that.
    """
    # A debugger wants Ctrl-C for itself.
    if options.debug:
        _train_all(todo, options, store, listener)
        return

    def stop() -> None:
        listener.stopping = True

    budget = Budget(options.ends)
    with StopSignals(stop=stop, insist=True) as signals, budget.calling(stop):
        try:
            _train_all(todo, options, store, listener)
        except Stopped:
            signals.raise_if_asked()
            if not budget.must_stop():
                raise
            left = sum(run.spec.key not in store.ended for run in todo)
            raise BudgetSpent(left, was_of_use=True) from None


def _train_all(todo: Sequence[Todo], options: RunOptions, store: Store, listener: Listener) -> None:
    # In the first round no time is spent on waiting for a helper network, because other runs are
    # left. Later rounds have only runs that have to wait for something.
    trainer = Trainer(options, store, listener)
    waiting = list(todo)
    again = False
    while waiting:
        held = []
        for run in waiting:
            if listener.stopping:
                raise Stopped
            record = trainer.attempt(run, wait=again)
            if record is None:
                held.append(run)
            else:
                store.ended[run.spec.key] = record
                listener.on_finish(run.spec, record)

        # The second round has waited for helper networks. What is still held, others train.
        if again and options.leave_held:
            return
        waiting, again = held, True
        if waiting and not options.leave_held:
            listener.on_wait(len(waiting))
            store.warn_of_holders([run.spec.key for run in waiting])
            time.sleep(POLL_SECONDS)
