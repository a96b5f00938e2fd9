"""The executor `ray`: what it gives to Ray, what it does with the replies, and its options.

Ray itself is played here. tests/stories/test_ray_cluster.py has a real cluster.
"""

import contextlib
import dataclasses
import importlib.util
import os
import pickle
import signal
import threading
import time

import pytest
from fake_ray import FakeRay, RayTaskError
from sweeps import listener, sweep

from nlbench.errors import BudgetSpent, StoreError, SuiteError, UserError
from nlbench.executors import Choice, _node, _ray_cluster, ray
from nlbench.executors.base import RunOptions, Todo, pick_devices
from nlbench.results.record import RunRecord


def done(task):
    """Return the result of a run that was trained."""
    spec = task.todo.spec
    record = RunRecord(
        key=spec.key,
        status="done",
        spec=spec.identity(),
        metrics={"last": 0.5},
        noise={},
        timing={"train": 1.0, "evaluate": 1.0},
        environment={"device": "cpu"},
        method={},
        code=task.code,
    )
    return _node.Result(record, [{"epoch": 0, "test_accuracy": 0.5}], None)


def task_of(call):
    """Return the order that a call of the task's function carries."""
    return pickle.loads(call.args[1])


def trained(call, node="n1"):
    """Return the reply of a task whose run was trained on a node."""
    return (node, f"host-{node}"), "ended", done(task_of(call))


class Ray:
    """Runs a sweep of these rows on a played Ray, and keeps what was reported."""

    def __init__(self, folder, monkeypatch, answer=trained, rows=("ce", "gce"), **options):
        self.sweep = sweep(folder / "out", {row: {} for row in rows})
        self.warned, self.finished = [], {}
        self.sweep.store.warn = self.warned.append
        self.sweep.store.require_writable()
        self.ray = FakeRay(answer)
        given = {"devices": pick_devices("cpu"), "data_dir": folder, "jobs": 0, **options}
        self.options = RunOptions(methods=self.sweep.methods, **given)
        connected = contextlib.nullcontext(self.ray)
        monkeypatch.setattr(_ray_cluster, "connected", lambda options, threads: connected)

    @property
    def store(self):
        return self.sweep.store

    def run(self, **hooks):
        todo = [Todo(spec, None) for spec in self.sweep.specs]

        def on_finish(spec, record):
            assert spec.key not in self.finished
            self.finished[spec.key] = record

        ray.execute(todo, self.options, self.store, listener(on_finish=on_finish, **hooks))

    def statuses(self):
        return {spec.row: self.store.read(spec.key).status for spec in self.sweep.specs}


# ---- Records -------------------------------------------------------------------------------------


def test_the_sweep_writes_each_record_with_the_name_of_its_node(tmp_path, monkeypatch):
    held = []

    def answer(call):
        key = task_of(call).todo.spec.key
        with played.store.lock(key) as mine:
            held.append(not mine)
        return trained(call)

    played = Ray(tmp_path, monkeypatch, answer)
    played.run()

    assert played.statuses() == {"ce": "done", "gce": "done"}
    assert held == [True, True]
    for key, record in played.finished.items():
        assert played.store.read(key) == record
        assert record.environment["node"] == "host-n1"
    # Nothing is left in the store but the records, and all locks are free.
    assert not list(played.store.root.glob(".ray-*"))
    for spec in played.sweep.specs:
        with played.store.lock(spec.key) as mine:
            assert mine


@pytest.mark.parametrize(
    ("while_it_trains", "late"), [(True, 0), (True, 3), (False, 1), (False, 5)]
)
def test_no_report_is_lost_where_the_mailbox_answers_late(
    tmp_path, monkeypatch, while_it_trains, late
):
    def answer(call):
        mailbox, number = call.args[4:]
        if number not in reported:
            reported.add(number)
            mailbox.put.remote(pickle.dumps((number, "on_resume", (1, 2))))
            if not while_it_trains:
                # From the end of the task on the mailbox owes an answer.
                played.ray.late = late
        # The task goes on while the mailbox owes an answer, and ends when it has given it.
        return None if while_it_trains and played.ray.late > 0 else trained(call)

    resumed, reported = [], set()
    played = Ray(tmp_path, monkeypatch, answer)
    if while_it_trains:
        played.ray.late = late
    played.run(on_resume=lambda spec, epoch, epochs: resumed.append((spec.row, epoch, epochs)))

    assert sorted(resumed) == [("ce", 1, 2), ("gce", 1, 2)]
    assert played.statuses() == {"ce": "done", "gce": "done"}


def test_a_run_has_the_threads_of_its_protocol_and_is_tried_by_the_sweep_alone(
    tmp_path, monkeypatch
):
    played = Ray(tmp_path, monkeypatch)
    played.run()
    call = played.ray.calls[0]
    threads = played.sweep.specs[0].protocol.threads
    assert (call.options["num_cpus"], call.options["num_gpus"]) == (threads, 0)
    assert call.options["max_retries"] == 0
    task = task_of(call)
    assert task.root.is_absolute()
    assert not task.files.sources


def test_jobs_limits_the_runs_that_ray_has(tmp_path, monkeypatch):
    rows = ("ce", "gce", "mae", "sl", "elr")
    free = Ray(tmp_path / "free", monkeypatch, rows=rows)
    free.run()
    assert free.ray.most_at_once == 4
    limited = Ray(tmp_path / "limited", monkeypatch, rows=rows, jobs=1)
    limited.run()
    assert limited.ray.most_at_once == 1
    assert limited.statuses() == free.statuses()


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch)
    ce = played.sweep.specs[0]
    waited, other = [], contextlib.ExitStack()
    other.enter_context(played.store.lock(ce.key))

    def on_wait(count):
        waited.append(count)
        if len(waited) == 1:
            # The other process ends its run.
            result = done(task_of(played.ray.calls[0]))
            record = result.record.model_copy(update={"key": ce.key, "spec": ce.identity()})
            played.store.write(record, [])
            other.close()

    played.run(on_wait=on_wait)
    runs = [call for call in played.ray.calls if call.name == "nlbench_run"]
    assert [task_of(call).todo.spec.row for call in runs] == ["gce"]
    assert set(played.finished) == {spec.key for spec in played.sweep.specs}


def test_a_run_that_needs_a_helper_network_in_training_comes_back(tmp_path, monkeypatch):
    def answer(call):
        task = task_of(call)
        waits.append((task.todo.spec.row, task.wait))
        if task.todo.spec.row == "ce" and not task.wait:
            return ("n1", "host"), "ended", None
        return trained(call)

    waits = []
    Ray(tmp_path, monkeypatch, answer).run()
    assert waits == [("ce", False), ("gce", True), ("ce", True)]


# ---- What Ray loses ------------------------------------------------------------------------------


def losing(names, after=trained):
    """Return an answer that ends the first tasks of `ce` with these errors of Ray."""
    left = list(names)

    def answer(call):
        if task_of(call).todo.spec.row == "ce" and left:
            return left.pop(0)
        return after(call)

    return answer


def test_a_run_whose_node_dies_begins_again(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch)
    error = played.ray.exceptions.NodeDiedError("The node IP: 127.0.0.1")
    played.ray._answer = losing([error] * 5)
    played.run()
    assert played.statuses() == {"ce": "done", "gce": "done"}
    begins = [line for line in played.warned if "it begins again, from its last checkpoint" in line]
    assert len(begins) == 5
    assert begins[0].startswith("ce seed 0: its node is gone;")


def test_a_run_that_ends_its_process_each_time_is_recorded_as_failed(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch)
    error = played.ray.exceptions.WorkerCrashedError("crashed")
    played.ray._answer = losing([error] * 9)
    played.run()
    assert played.statuses() == {"ce": "failed", "gce": "done"}
    (ce, _) = played.sweep.specs
    message = played.store.read(ce.key).error_message
    assert message == "WorkerDied: its process on its node was ended, as 2 times before"


def test_short_memory_is_not_tried_again(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch)
    played.ray._answer = losing([played.ray.exceptions.OutOfMemoryError("oom")] * 9)
    played.run()
    assert played.statuses() == {"ce": "failed", "gce": "done"}
    message = played.store.read(played.sweep.specs[0].key).error_message
    assert "memory" in message
    assert "--jobs" in message


def test_an_error_of_the_task_itself_fails_its_run_alone(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch, losing([RayTaskError(KeyError("no such thing"))]))
    played.run()
    assert played.statuses() == {"ce": "failed", "gce": "done"}


def test_a_finished_record_survives_the_loss_of_its_repetition(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch)
    played.run()
    before = played.store.read(played.sweep.specs[0].key)
    again = Ray(tmp_path, monkeypatch)
    again.ray._answer = losing([again.ray.exceptions.OutOfMemoryError("oom")] * 9)
    todo = [Todo(spec, _node_age(again, spec)) for spec in again.sweep.specs]
    ray.execute(todo, again.options, again.store, listener())
    assert again.store.read(before.key) == before


def _node_age(played, spec):
    return played.store.record_path(spec.key).stat().st_mtime_ns


# ---- Nodes that cannot train ---------------------------------------------------------------------


def refusing(*nodes):
    """Return an answer by which these nodes refuse every run. Each goes to the first node."""

    def answer(call):
        avoided = call.options.get("label_selector", {}).get("ray.io/node-id", "")
        node = next((name for name in ("n1", "n2") if name not in avoided), "n1")
        if node in nodes:
            return (node, f"host-{node}"), "refused", "it lacks the data: copy them there"
        return trained(call, node)

    return answer


def test_a_node_that_refuses_gets_no_more_runs(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch, refusing("n1"))
    played.run()
    assert played.statuses() == {"ce": "done", "gce": "done"}
    assert {record.environment["node"] for record in played.finished.values()} == {"host-n2"}
    assert played.warned == [
        "node host-n1 gets no more runs of this sweep: it lacks the data: copy them there"
    ]


def test_the_sweep_ends_with_all_reasons_if_no_node_is_left(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch, refusing("n1", "n2"))
    with pytest.raises(UserError, match=r"no node .* can train") as error:
        played.run()
    assert "host-n1: it lacks the data" in str(error.value)
    assert "host-n2: it lacks the data" in str(error.value)
    assert not played.finished


def test_an_error_of_the_shared_store_ends_the_sweep(tmp_path, monkeypatch):
    error = StoreError("out: was removed")
    played = Ray(tmp_path, monkeypatch, lambda call: (("n1", "h"), "error", error))
    with pytest.raises(StoreError, match="was removed"):
        played.run()
    for spec in played.sweep.specs:
        with played.store.lock(spec.key) as mine:
            assert mine


def test_a_run_that_fits_nowhere_is_named_and_waits(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch)
    played.ray.alive = {"n1": {"CPU": 0}}
    played.run()
    assert "no node of the Ray cluster has 1 CPU; the runs wait for one" in played.warned


# ---- Stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "word"), [("SIGINT", "stopping"), ("SIGTERM", "SIGTERM")])
def test_a_signal_cancels_all_tasks(tmp_path, monkeypatch, number, word):
    def answer(call):
        os.kill(os.getpid(), getattr(signal, number))

    played, said = Ray(tmp_path, monkeypatch, answer), []
    with pytest.raises(KeyboardInterrupt):
        played.run(on_stop=said.append)
    assert played.ray.calls
    assert all(call.cancelled for call in played.ray.calls)
    assert said[0].startswith(word)
    assert not played.finished
    assert not list(played.store.root.glob(".ray-*"))


def test_a_record_that_comes_while_stopping_is_kept(tmp_path, monkeypatch):
    def answer(call):
        if not played.ray.calls[0].cancelled:
            os.kill(os.getpid(), signal.SIGINT)
            return None
        return trained(call)

    played = Ray(tmp_path, monkeypatch, answer, rows=("ce",))
    monkeypatch.setattr(
        played.ray, "cancel", lambda ref, force, recursive: setattr(ref, "cancelled", True)
    )
    with pytest.raises(KeyboardInterrupt):
        played.run()
    assert played.statuses() == {"ce": "done"}


def test_the_sweep_stops_in_time_and_counts_what_is_left(tmp_path, monkeypatch):
    played, said = Ray(tmp_path, monkeypatch, lambda call: None), []
    began = time.monotonic()
    played.options = dataclasses.replace(played.options, ends=began + 4)
    with pytest.raises(BudgetSpent) as spent:
        played.run(on_stop=said.append)
    assert time.monotonic() - began < 8
    assert spent.value.left == 2
    assert "--budget is nearly over" in said[0]
    assert all(call.cancelled for call in played.ray.calls)


def test_a_sweep_that_has_only_waited_for_others_may_be_called_again(tmp_path, monkeypatch):
    played = Ray(tmp_path, monkeypatch)
    played.options = dataclasses.replace(played.options, ends=time.monotonic() + 2)
    with contextlib.ExitStack() as others:
        for run in played.sweep.specs:
            others.enter_context(played.store.lock(run.key))
        with pytest.raises(BudgetSpent) as spent:
            played.run()
    assert (spent.value.left, spent.value.was_of_use) == (2, True)


# ---- Options -------------------------------------------------------------------------------------


@pytest.fixture
def without_ray(monkeypatch):
    """Let ray look as if it were not installed: no message asks for it in vain."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_options_of_ray_are_refused_without_it(without_ray):
    with pytest.raises(SuiteError, match="--address a:1: is an option of --executor ray"):
        Choice.of_user(None, "a:1")
    with pytest.raises(SuiteError, match=r"--gpus-per-run 0\.5: is an option of --executor ray"):
        Choice.of_user("workers", None, 0.5)
    with pytest.raises(SuiteError, match=r"--executor rai: no such executor.*'ray'"):
        Choice.of_user("rai")


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_run_has_at_most_one_gpu(without_ray, share):
    with pytest.raises(SuiteError, match="must be above 0 and at most 1"):
        Choice.of_user("ray", None, share)


def test_ray_assigns_the_gpus(without_ray):
    with pytest.raises(SuiteError, match="--device cuda:1: Ray assigns the GPUs"):
        Choice.of_user("ray").check("cuda:1")
    with pytest.raises(SuiteError, match="exclude each other"):
        Choice.of_user("ray", None, 0.5).check("cpu")
    with pytest.raises(SuiteError, match="Ray divides the runs among its nodes"):
        Choice.of_user("ray").check("cpu", sharded=True)


def test_without_the_package_the_message_says_how_to_install_it(without_ray):
    with pytest.raises(UserError, match=r"pip install 'nlbench\[ray\]'"):
        Choice.of_user("ray").check("cpu")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", "client protocol is not supported"),
        ("head", "write HOST:PORT"),
        ("head:99999", "write HOST:PORT"),
        ("127.0.0.1:1", "nobody answers there"),
    ],
)
def test_an_address_that_cannot_be_joined(tmp_path, address, message):
    pytest.importorskip("ray", reason="needs ray: pip install 'nlbench[ray]'")
    options = RunOptions(pick_devices("cpu"), tmp_path, {}, address=address)
    began = time.monotonic()
    with pytest.raises(UserError, match=message), _ray_cluster.connected(options, 1):
        pass
    assert time.monotonic() - began < 30


def test_the_module_beside_the_package_does_not_hide_it():
    pytest.importorskip("ray", reason="needs ray: pip install 'nlbench[ray]'")
    assert hasattr(_ray_cluster.import_ray(), "init")
    assert not hasattr(ray, "init")
    assert threading.current_thread() is threading.main_thread()
