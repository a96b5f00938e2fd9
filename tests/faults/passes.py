"""One pass: the suite in an empty store, called and disturbed until everything is done."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import fault_kinds
from bookkeeping import Books, finished, results
from fault_kinds import START, TRAINING, Pace, Plan, SmallDisk
from fault_report import Done
from small_suite import Call, Laboratory, Suite

from nlbench.results.integrity import FILES

# Done; a run has failed; the disk is full or no process can be had; SIGKILL; 128 and the number of
# the signal that asked the command to end. Before Python handles signals, it ends by them.
_STATUSES = {0, 1, 2, -9, 130, 138, 143, -2, -10, -15}


class Undisturbed:
    """The table and the results of the suite where nothing happens.

    Attributes:
        suite: the suite.
        table: what the command prints.
        results: as `bookkeeping.results`.
        pace: how long that took.
        changes: how often it has changed the store.
    """

    def __init__(self, folder: Path, suite: Suite) -> None:
        self.suite = suite
        lab = Laboratory(folder, folder / "store", suite.text)
        call = lab.start()
        call.finish()
        if call.status:
            raise SystemExit(f"the undisturbed suite ended with {call.status}:\n{call.err}")
        first = call.first_run() or 0.0
        self.table, self.pace = call.out, Pace(first, (call.seconds - first) / suite.runs)
        self.changes = len(call.changes())
        self.results = results(lab.store, set(finished(lab.store)))
        assert len(self.results) == suite.runs, f"{len(self.results)} runs are done"


class Pass:
    """The suite in a store of its own.

    Attributes:
        faults: what has happened.
        done: whether a call has ended with status 0.
        equal: whether its table was the undisturbed one.
        statuses: the exit statuses of all calls.
        processes: how many processes went on after the command's end.

    Args:
        disk: where the store lies, if it is to be on a small disk.
    """

    def __init__(self, folder: Path, undisturbed: Undisturbed, disk: SmallDisk | None) -> None:
        self._disk = disk
        store = folder / "store" if disk is None else disk.folder / folder.name
        self._suite = undisturbed.suite
        self.lab = Laboratory(folder, store, self._suite.text)
        self.books = Books(store, undisturbed.results)
        self.faults: list[Done] = []
        self.statuses: list[int] = []
        self.processes = self.leftovers = 0
        self.done = self.equal = False
        self._table = undisturbed.table
        self._number = 0

    @property
    def on_small_disk(self) -> bool:
        """Whether the store lies on a disk that can be filled."""
        return self._disk is not None

    # ---- One call -------------------------------------------------------------------------------

    def disturb(self, number: int, plan: Plan, rng: random.Random) -> None:
        """Make the call `number`, with everything that the plan says, and look at the store."""
        self._number = number
        self._flip(plan, rng)
        self._look([self._with_full_disk(plan, rng)] if plan.full else self._with_signals(plan))

    def finish(self) -> None:
        """Call the command without a fault until everything is done, at most three times."""
        self._number = -1
        for _ in range(3):
            if self.done:
                return
            call = self.lab.start()
            call.finish()
            self._look([call])
        if not self.done:
            self._problem("three calls without a fault did not end the suite")

    def _flip(self, plan: Plan, rng: random.Random) -> None:
        for _ in range(plan.flips):
            path = fault_kinds.flip(self.lab.store, rng)
            if path is None:
                continue
            self.books.flips += 1
            if path.parent.parent.name == "runs" and path.name != "checkpoint.pt":
                self.books.damaged.add(path.parent.name)
            if path.name in FILES:
                # The record can still be used, so only who asks for it trains the run again.
                self.lab.ask("repair", "--again")
            kind = {"fits": "helper network", "suites": "plan"}.get(path.parent.name, path.name)
            self._note(f"flipped bit: {kind}", "between two calls", plan.jobs, None)

    def _with_full_disk(self, plan: Plan, rng: random.Random) -> Call:
        assert self._disk is not None
        left = rng.choice([0, rng.randint(0, 40_000), rng.randint(0, 400_000)])
        if plan.full == START:
            self._disk.fill(left)
        call = self.lab.start("--jobs", str(plan.jobs))
        if plan.full == TRAINING and fault_kinds.wait_for_training(call):
            time.sleep(rng.uniform(0, 1))
            self._disk.fill(left)
        call.finish()
        self._disk.free()
        self._note("disk full", plan.full, plan.jobs, call.seconds)
        return call

    def _with_signals(self, plan: Plan) -> list[Call]:
        """Return the calls; the last of them is one that no fault was meant to end, if any is."""
        triggers = [fault.trigger for fault in plan.faults if fault.trigger is not None]
        call = self.lab.start("--jobs", str(plan.jobs), triggers=triggers)
        calls = [call]
        if plan.beside:
            time.sleep(plan.delay)
            calls.append(self.lab.start("--jobs", str(plan.jobs)))

        last, sent = plan.faults[-1], None
        if last.trigger is None:
            sent = fault_kinds.deliver(call, last, self._is_trained)
        for each in calls:
            each.finish()

        if plan.beside:
            self._note("a second process", TRAINING, plan.jobs, None)
        number = 0
        for fault in plan.faults:
            if fault.trigger is None:
                seconds = None if sent is None else call.ended - sent
            else:
                seconds = call.since(number)
                number += 1
            if seconds is not None:
                ends = fault.to == "command"
                self._note(fault.kind, fault.moment, plan.jobs, seconds if ends else None)
        return calls

    def _is_trained(self) -> bool:
        # Counted first, because reading all records takes a tenth of a second.
        records = len(list(self.lab.store.glob("runs/*/record.json")))
        return records == self._suite.runs == len(finished(self.lab.store))

    def _note(self, kind: str, moment: str, jobs: int, seconds: float | None) -> None:
        self.faults.append(Done(self._number, kind, moment, jobs, seconds))

    # ---- After it -------------------------------------------------------------------------------

    def _look(self, calls: Sequence[Call]) -> None:
        """Compare store, processes and messages after a call, or two at the same time."""
        left = self.lab.remaining()
        self.processes += len(left)
        if left:
            self._problem(f"processes left: {left}; see {calls[0].log}")
        for call in calls:
            self._look_at_messages(call)
        self._look_at_store(calls)

        last = calls[-1]
        if last.status == 0:
            self.done, self.equal = True, last.out == self._table
            if not self.equal:
                self._problem(f"another table: see {last.log / 'out'}")
            for line in [*self.books.leftovers(), *self._verified()]:
                self.leftovers += 1
                self._problem(f"left over in {self.lab.store}: {line}")

    def _verified(self) -> list[str]:
        """Return what `nlbench verify` finds, after a repair if the test has damaged files."""
        found = self.lab.ask("verify", "--format", "json")
        if found.returncode and self.books.flips:
            # A helper network that no run has needed since is still as damaged as before.
            self.lab.ask("repair")
            found = self.lab.ask("verify", "--format", "json")
        try:
            report = json.loads(found.stdout)
        except ValueError:
            return [f"verify: status {found.returncode}: {found.stderr.strip()}"]
        lines = [f"verify: {json.dumps(finding)}" for finding in report["findings"]]
        lines += [f"verify: unknown {name}" for name in report["unknown"]]
        if (found.returncode or report["runs"]["done"] != self._suite.runs) and not lines:
            lines.append(f"verify: status {found.returncode}: {report['runs']}")
        return lines

    def _look_at_messages(self, call: Call) -> None:
        assert call.status is not None
        self.statuses.append(call.status)
        if call.hung:
            self._problem(f"hangs: see {call.log}")
        if call.status not in _STATUSES:
            self._problem(f"exit status {call.status}: see {call.log / 'err'}")
        # The first moments belong to Python itself.
        if "Traceback" in call.err and call.seconds > 0.5:
            self._problem(f"a traceback: see {call.log / 'err'}")

    def _look_at_store(self, calls: Sequence[Call]) -> None:
        books = self.books
        known, lost, doubled = len(books.problems), books.lost, books.doubled
        books.look(*calls)
        for line in books.problems[known:]:
            print(f"call {self._number}: {line}", file=sys.stderr, flush=True)
        if self.faults:
            self.faults[-1].lost += books.lost - lost
            self.faults[-1].doubled += books.doubled - doubled

    def _problem(self, text: str) -> None:
        line = f"call {self._number}: {text}"
        self.books.problems.append(line)
        print(line, file=sys.stderr, flush=True)
