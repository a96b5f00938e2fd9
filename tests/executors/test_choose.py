"""The executor that trains a sweep is chosen by its options, and is given the sweep's runs."""

from types import SimpleNamespace

import pytest
import torch
from sweeps import listener, sweep

from nlbench import executors, hardware
from nlbench.errors import SuiteError
from nlbench.executors import base, local, workers

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def options(tmp_path, devices=(CPU,), **more):
    """Return options for runs on these devices."""
    return base.RunOptions(devices, tmp_path, {}, **more)


# Taken before the tests' settings replace it.
USUAL = executors.usual


def test_runs_have_processes_of_their_own_except_for_a_debugger(tmp_path):
    assert USUAL(options(tmp_path)) == "workers"
    assert USUAL(options(tmp_path, (CPU, GPU), jobs=2)) == "workers"
    assert USUAL(options(tmp_path, debug=True)) == "local"
    assert executors.choose(options(tmp_path, jobs=2)) is workers


def test_a_named_executor_is_taken_whatever_the_number_of_jobs(tmp_path):
    assert executors.choose(options(tmp_path, jobs=2, executor="local")) is local


def test_an_unknown_executor_is_refused_with_the_known_names(tmp_path):
    names = ", ".join(executors.names())
    message = rf"NLBENCH_EXECUTOR=worker: .*There are: {names}\..*'workers'"
    assert executors.names() == ["local", "ray", "workers"]
    with pytest.raises(SuiteError, match=message):
        executors.choose(options(tmp_path, executor="worker"))


def test_a_file_in_the_folder_is_an_executor(tmp_path, monkeypatch):
    """The folder is the list: no other file names its executors."""
    (tmp_path / "_helpers.py").write_text("")
    (tmp_path / "printing.py").write_text(
        "def execute(todo, options, store, listener):\n"
        "    for run in todo:\n"
        "        print(run.spec.row, options.device, options.jobs)\n"
    )
    # The package now lies in the test's folder.
    monkeypatch.setattr(executors, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(executors, "__path__", [str(tmp_path)])

    assert executors.names() == ["printing"]
    assert hasattr(executors.choose(options(tmp_path, executor="printing")), "execute")


def test_a_sweep_gives_the_executor_its_runs_in_order_and_the_listener(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(local, "execute", lambda *args: given.append(args))
    monkeypatch.setenv("NLBENCH_EXECUTOR", "local")
    sw = sweep(tmp_path, {"ce": {}, "elr": {}})
    reports = listener()
    sw.run(reports, jobs=2, checkpoint_seconds=7)
    ((todo, given_options, store, given_listener),) = given

    assert [run.spec.row for run in todo] == ["ce", "elr"]
    assert [run.age for run in todo] == [None, None]
    assert (given_options.jobs, given_options.checkpoint_seconds) == (2, 7)
    assert given_options.device == CPU
    assert store is sw.store
    assert given_listener is reports


def runs_of(rows, seeds, precision="float32", threads=1):
    """Return runs of these rows and seeds."""
    protocol = SimpleNamespace(precision=precision, threads=threads)
    return [SimpleNamespace(row=row, seed=s, protocol=protocol) for row in rows for s in seeds]


def test_what_would_make_a_sweep_faster_depends_on_what_is_left_unused(monkeypatch):
    monkeypatch.setattr(hardware, "cores", lambda: 8)
    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: False)
    many = runs_of(["ce", "elr", "gce"], [0, 1, 2], "bfloat16", threads=2)

    ways = base.ways_to_be_faster(many, CPU, 1)
    # As options, and as arguments of `nlbench.run`.
    assert [(way.option, way.argument) for way in ways] == [
        ("--set precision=auto", 'overrides={"precision": "auto"}'),
        ("--jobs 4", "jobs=4"),
        ("--seeds 0", "seeds=[0]"),
        ("--only ce,elr", 'only=["ce", "elr"]'),
    ]
    assert ways[1].effect == "trains 4 runs at the same time, and not 1"

    spaced = base.ways_to_be_faster(runs_of(["ce slow", "my's", "gce"], [0]), CPU, 8)
    assert spaced[-1].option == """--only 'ce slow,my'"'"'s'"""
    assert spaced[-1].argument == 'only=["ce slow", "my\'s"]'

    # All cores are busy.
    busy = base.ways_to_be_faster(many, CPU, 4)
    assert not any(way.option.startswith(("--jobs", "--set threads")) for way in busy)
    # One run cannot be divided among processes.
    (threads,) = base.ways_to_be_faster(runs_of(["ce"], [0]), CPU, 1)
    assert (threads.option, threads.argument) == ("--set threads=8", 'overrides={"threads": 8}')
    assert threads.effect.startswith("uses all 8 cores")

    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: True)
    assert base.ways_to_be_faster(runs_of(["ce"], [0], "bfloat16"), GPU, 1) == []
