"""Runs whose processes are killed, that wait for another process, and that end in time."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweeps import listener, method_file
from sweeps import sweep as sweep_in

pytestmark = pytest.mark.story

NLBENCH = Path(sys.executable).with_name("nlbench")


def sweep(out, methods, **options):
    """Return a prepared sweep of these rows on 200 noisy digits."""
    return sweep_in(out, methods, **{"subset": 200, **options})


def test_a_run_whose_process_is_killed_fails_and_the_others_go_on(tmp_path):
    body = """
        class Dies(Method):
            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels)

            def on_epoch_end(self, run, epoch):
                if not Path(os.environ["NLBENCH_TEST_SURVIVES"]).exists():
                    os.kill(os.getpid(), signal.SIGKILL)
    """
    folder = method_file(tmp_path / "methods", "dies", body)
    survives = tmp_path / "survives"
    methods = {"dies": {}, "ce": {}, "gce": {}, "mae": {}}

    # Workers get the name of the file by their environment.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLBENCH_TEST_SURVIVES", str(survives))
        sw = sweep(tmp_path / "out", methods, methods_dir=folder)
        sw.run(jobs=2)

        (failed,) = sw.failures()
        assert failed.spec["method"] == "dies"
        assert failed.status == "failed"
        assert "SIGKILL" in failed.error["message"]
        assert "--jobs" in failed.error["message"]

        # The same sweep tries the failed run again, and no other.
        survives.touch()
        again = sweep(tmp_path / "out", methods, methods_dir=folder)
        assert [spec.row for spec in again.state.todo] == ["dies"]
        again.run(jobs=2)
        assert again.failures() == []


def test_what_another_process_holds_is_waited_for(tmp_path):
    sw = sweep(tmp_path / "out", {"ce": {}, "elr": {}})
    theirs = sw.specs[0]
    waited, finished = [], []

    def on_wait(count):
        waited.append(count)
        # This lets go of the lock, as the other process would at its end.
        stack.close()

    def on_finish(spec, record):
        finished.append(spec.row)

    with contextlib.ExitStack() as stack:
        assert stack.enter_context(sw.store.lock(theirs.key))
        sw.run(listener(on_wait=on_wait, on_finish=on_finish), jobs=2)

    assert waited[0] == 1
    # The run that was held comes last, although it is the first of the sweep.
    assert finished == ["elr", "ce"]
    assert sw.failures() == []


def running(folder):
    """Return the ids of the processes that were started for this folder, workers included."""
    found = []
    # A process may end while its files are read.
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"NLBENCH_TEST_NAME={folder}".encode() in path.read_bytes():
                found.append(int(path.parent.name))

    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_command(tmp_path, number):
    command = [NLBENCH, "run", "quick", "--jobs", "2", "--out", tmp_path / "out"]
    command += ["--only", "ce,elr", "--seeds", "0"]
    command += ["--set", "epochs=200", "--checkpoint-seconds", "0"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "NLBENCH_TEST_NAME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    # Two checkpoints: both workers are training.
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("out/runs/*/checkpoint.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)

    # The command, its fork server, and the processes of two runs.
    assert len(running(tmp_path)) == 4

    if number == signal.SIGINT:
        # A terminal sends it to the workers, too.
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    errors = process.communicate(timeout=60)[1]

    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.splitlines()[-1].startswith("interrupted; ")
        assert "Traceback" not in errors

    # After SIGKILL the system ends the others.
    deadline = time.monotonic() + 5
    while running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert running(tmp_path) == []
    assert not list(tmp_path.glob("out/runs/*/record.json"))
    assert len(list(tmp_path.glob("out/runs/*/checkpoint.pt"))) == 2


def children(pid):
    """Return the ids of the processes that a process has started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of processes")
@pytest.mark.parametrize("victim", ["the fork server", "a run"])
def test_a_process_of_the_sweep_is_killed_from_outside(tmp_path, victim):
    def command(out):
        name = [NLBENCH, "run", "quick", "--jobs", "2", "--out", tmp_path / out]
        name += ["--only", "ce,elr", "--seeds", "0"]
        return [*name, "--set", "epochs=40", "--checkpoint-seconds", "0"]

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    whole = subprocess.run(command("whole"), check=True, **pipes)
    process = subprocess.Popen(command("out"), **pipes)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("out/runs/*/checkpoint.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    (server,) = children(process.pid)
    os.kill(server if victim == "the fork server" else children(server)[0], signal.SIGKILL)
    out, errors = process.communicate(timeout=200)

    assert "Traceback" not in errors
    if victim == "the fork server":
        # The runs are tried once more within the same command.
        assert "the process that starts the runs was ended; each run that was going on" in errors
        assert (process.returncode, out) == (0, whole.stdout)
        return
    assert process.returncode == 1
    assert "was ended by SIGKILL; the system does that when memory is short" in errors
    again = subprocess.run(command("out"), check=True, **pipes)
    assert "continues" in again.stderr
    assert again.stdout == whole.stdout
