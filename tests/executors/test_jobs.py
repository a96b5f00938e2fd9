"""Several runs at once: the same numbers as one after the other, and what becomes of those whose process dies."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sweeps import listener

from nlbench import api, hardware
from nlbench.errors import SuiteError
from nlbench.executors import base, workers

NLBENCH = Path(sys.executable).with_name("nlbench")


def sweep(out, methods, *, seeds=(0,), methods_dir=None, **overrides):
    suite = {
        "name": "jobs",
        "protocol": "digits",
        "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
        "methods": methods,
        "seeds": list(seeds),
    }
    overrides = {"epochs": 2, "subset": 200, **overrides}
    return api.prepare(suite, out=out, overrides=overrides, device="cpu", methods_dir=methods_dir)


def write_method(folder, name, body):
    folder.mkdir(exist_ok=True)
    header = f'"""{name}."""\n\nimport os\nimport signal\nfrom pathlib import Path\n\n'
    header += "from torch.nn import functional as F\n\nfrom nlbench.method import Method\n\n\n"
    (folder / f"{name}.py").write_text(header + textwrap.dedent(body))
    return folder


def curves(sw):
    """Key -> the history without what the clock says, and the predictions."""
    found = {}
    for spec in sw.specs:
        folder = sw.store.run_dir(spec.key)
        rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
        kept = [i for i, name in enumerate(rows[0]) if name not in ("seconds", "images_per_second")]
        with np.load(folder / "predictions.npz") as predictions:
            found[spec.key] = [[row[i] for i in kept] for row in rows], {k: v.tolist() for k, v in predictions.items()}
    return found


def test_results_do_not_depend_on_the_number_of_jobs(tmp_path):
    methods = {"ce": {}, "elr": {}, "forward": {}, "backward": {}}  # the last two share a helper network
    alone, together = (sweep(tmp_path / name, methods, seeds=(0, 1)) for name in ("alone", "together"))
    alone.run()
    heard = []
    together.run(listener(on_start=lambda spec: heard.append(spec.key)), jobs=3)
    assert curves(together) == curves(alone)
    assert together.failures() == []
    assert set(heard) == {spec.key for spec in together.specs}
    fits = [sorted(path.name for path in sw.store.root.glob("fits/*.pt")) for sw in (alone, together)]
    assert fits[0] == fits[1]
    assert len(fits[0]) == 2  # one a seed
    for sw, jobs in ((alone, 1), (together, 3)):
        assert {sw.store.read(spec.key).environment["jobs"] for spec in sw.specs} == {jobs}


def test_hooks_say_which_run_they_are_about(tmp_path):
    sw = sweep(tmp_path, {"ce": {}, "elr": {}}, epochs=3)
    epochs, finished = {}, {}
    sw.run(
        listener(on_epoch=lambda spec, epoch, total, row: epochs.setdefault(spec.row, []).append(
                (epoch, total, row["loss"])
            ),
            on_finish=lambda spec, record: finished.update({spec.row: record}),
        ),
        jobs=2,
    )
    assert set(epochs) == set(finished) == {"ce", "elr"}
    for row, seen in epochs.items():
        assert [(epoch, total) for epoch, total, _ in seen] == [(0, 3), (1, 3), (2, 3)]
        assert finished[row].spec["method"] == row
    assert [loss for _, _, loss in epochs["ce"]] != [loss for _, _, loss in epochs["elr"]]


def test_a_run_whose_process_is_killed_fails_and_the_others_go_on(tmp_path):
    body = """
        class Dies(Method):
            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels)

            def on_epoch_end(self, run, epoch):
                if not Path(os.environ["NLBENCH_TEST_SURVIVES"]).exists():
                    os.kill(os.getpid(), signal.SIGKILL)
    """
    folder, survives = write_method(tmp_path / "methods", "dies", body), tmp_path / "survives"
    methods = {"dies": {}, "ce": {}, "gce": {}, "mae": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLBENCH_TEST_SURVIVES", str(survives))
        sw = sweep(tmp_path / "out", methods, methods_dir=folder)
        sw.run(jobs=2)
        (failed,) = sw.failures()
        assert failed.spec["method"] == "dies"
        assert failed.status == "failed"
        assert "SIGKILL" in failed.error["message"]
        assert "--jobs" in failed.error["message"]
        survives.touch()
        again = sweep(tmp_path / "out", methods, methods_dir=folder)
        assert [spec.row for spec in again.state.todo] == ["dies"]
        again.run(jobs=2)
        assert again.failures() == []


def test_a_worker_that_died_idle_is_replaced_before_its_next_run(tmp_path, monkeypatch):
    sw, killed = sweep(tmp_path, {"ce": {}, "elr": {}, "gce": {}}), []
    begin = workers.Worker.begin

    def kill_first(worker, *order, **more):
        if order[0].spec.row == "gce":
            killed.append(worker.process.pid)
            worker.process.kill()
            worker.process.wait()
        begin(worker, *order, **more)

    monkeypatch.setattr(workers.Worker, "begin", kill_first)
    sw.run(jobs=2)
    assert len(killed) == 1
    assert sw.failures() == []


def test_the_lock_of_a_dead_process_is_undone_and_no_other(tmp_path):
    sw = sweep(tmp_path, {"ce": {}})
    lock = sw.store.run_dir("0" * 16) / "lock"
    lock.parent.mkdir(parents=True)
    for holder, left in ((f"{socket.gethostname()} 77", ""), ("elsewhere 77", "elsewhere 77"), ("", "")):
        lock.write_text(holder)
        sw.store.release("0" * 16, 77)
        assert lock.read_text() == left
    sw.store.release("1" * 16, 77)


def test_an_error_of_a_run_is_its_record_with_the_traceback(tmp_path):
    body = """
        class Raises(Method):
            def loss(self, logits, batch):
                raise KeyError("no such thing")
    """
    sw = sweep(tmp_path / "out", {"raises": {}, "ce": {}}, methods_dir=write_method(tmp_path / "m", "raises", body))
    sw.run(jobs=2)
    (failed,) = sw.failures()
    assert "KeyError: 'no such thing'" in failed.error["message"]
    assert "raises.py" in failed.error["traceback"]


def test_a_store_that_cannot_be_written_ends_the_sweep(tmp_path, monkeypatch):
    sw = sweep(tmp_path / "out", {"ce": {}, "elr": {}})
    sw.store.require_writable()
    sw.store.run_dir(sw.specs[0].key).write_text("in the way")  # where the run's folder should be
    with pytest.raises(OSError, match=sw.specs[0].key):
        sw.run(jobs=2)


def test_what_another_process_holds_is_waited_for(tmp_path):
    sw = sweep(tmp_path / "out", {"ce": {}, "elr": {}})
    theirs = sw.specs[0]
    waited, finished = [], []
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(sw.store.lock(theirs.key))
        sw.run(
            listener(on_wait=lambda count: (waited.append(count), stack.close()),
                on_finish=lambda spec, record: finished.append(spec.row),
            ),
            jobs=2,
        )
    assert waited[0] == 1
    assert finished == ["elr", "ce"]
    assert sw.failures() == []


def running(folder):
    """Processes whose command line names the folder's workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"NLBENCH_TEST_NAME={folder}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_command(tmp_path, number):
    command = [NLBENCH, "run", "quick", "--jobs", "2", "--out", tmp_path / "out", "--checkpoint-seconds", "0"]
    process = subprocess.Popen(
        [*command, "--only", "ce,elr", "--seeds", "0", "--set", "epochs=200"],
        env={**os.environ, "NLBENCH_TEST_NAME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("out/runs/*/checkpoint.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(running(tmp_path)) == 3
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to the workers, too
    else:
        process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert said.splitlines()[-1].startswith("interrupted; ")
        assert "Traceback" not in said
    while running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running(tmp_path) == []
    assert not list(tmp_path.glob("out/runs/*/record.json"))
    assert len(list(tmp_path.glob("out/runs/*/checkpoint.pt"))) == 2


def test_how_many_jobs(tmp_path, monkeypatch):
    todo = sweep(tmp_path, {"ce": {}, "elr": {}}, threads=3).specs
    cpu, gpus = [torch.device("cpu")], [torch.device("cuda", 0), torch.device("cuda", 1)]
    for cores, expected in ((1, 1), (5, 1), (6, 2), (16, 5)):
        monkeypatch.setattr(hardware, "cores", lambda cores=cores: cores)
        assert workers.count_jobs("auto", todo, cpu) == expected
    assert workers.count_jobs("auto", todo, gpus) == 1
    assert workers.count_jobs(7, todo, gpus) == 7
    with pytest.raises(SuiteError, match="--jobs 0: must be at least 1"):
        workers.count_jobs(0, todo, cpu)


def test_runs_are_spread_over_the_devices(tmp_path, monkeypatch):
    """Which worker is started for which device; the workers themselves would need the GPUs."""
    started = []

    class Stands:
        todo = None

        def __init__(self, options, root, among):
            started.append((options.device, options.jobs, among))

        def end(self):
            pass

    monkeypatch.setattr(workers, "Worker", Stands)
    monkeypatch.setattr(workers, "share_out", lambda *args: None)
    sw = sweep(tmp_path, {"ce": {}, "elr": {}, "gce": {}})
    devices = torch.device("cuda", 0), torch.device("cuda", 2)
    options = base.RunOptions(devices, sw.data_dir, sw.methods, jobs=2)
    todo = [base.Todo(spec, None) for spec in sw.specs]
    workers.execute(todo, options, sw.store, base.Listener())
    assert started == [(devices[0], 2, 3), (devices[1], 2, 3), (devices[0], 2, 3)]  # three runs need three workers


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("cuda:0,cuda:0", "each must be another cuda:NUMBER"),
        ("cuda,cuda:1", "each must be another cuda:NUMBER"),
        ("cpu,cuda:0", "each must be another cuda:NUMBER"),
        ("cuda:0,cuda:9", "--device cuda:9: torch sees 2 GPUs here"),
        ("cuda:0,gpu", "--device gpu: must be auto, cpu, cuda or cuda:NUMBER"),
    ],
)
def test_devices_that_cannot_be(names, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SuiteError, match=said):
        base.pick_devices(names)


def test_several_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert base.pick_devices("cuda:0,cuda:2") == (torch.device("cuda", 0), torch.device("cuda", 2))


def test_more_threads_than_cores_are_warned_of(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    sw = sweep(tmp_path, {"ce": {}}, threads=2)
    sw.store.warn = said.append
    sw.run(jobs=2)
    assert [line for line in said if line.startswith("--jobs 2 of 2 threads each are too many for 2 cores")]
