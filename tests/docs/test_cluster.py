"""Run the scripts of docs/cluster.md as Slurm would, with a fake `scontrol` and no Slurm."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from pages import DOCS, blocks
from trial import ENDLESS, SUITE

from nlbench.cli.app import app

PAGE = DOCS / "cluster.md"
SCRIPTS = [block.text for block in blocks(PAGE) if block.kind == "bash"]
ARRAY = next(script for script in SCRIPTS if "--signal=B:USR1" in script)
REQUEUE = next(script for script in SCRIPTS if "--requeue" in script)


def test_every_script_is_read():
    assert len(SCRIPTS) >= 3
    assert all(script.startswith("#!/bin/bash\n") for script in SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_can_read_a_script(script):
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_command_of_a_script_parses(script):
    (line,) = re.findall(r"(?m)^(?:exec )?nlbench (.*?)(?: &)?$", script)
    command = typer.main.get_command(app).commands["run"]
    words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "1"))[1:]
    context = command.make_context("run", words)

    # As many tasks as shards.
    if context.params["shard"]:
        count = context.params["shard"].partition("/")[2]
        assert f"#SBATCH --array=1-{count}\n" in script


@pytest.fixture
def place(tmp_path):
    """Return a folder with a fake `scontrol`, which keeps its arguments in a file."""
    tools = tmp_path / "venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.txt\n')
    (tools / "scontrol").chmod(0o755)
    return tmp_path


def submit(script, place, task, **replaced):
    """Start a script as the job of an array's task. Returns its process."""
    (place / "suite.yaml").write_text(replaced.pop("suite"))
    script = re.sub(r"(?m)^suite=.*$", f"suite={place}/suite.yaml", script)
    script = re.sub(r"(?m)^shared=.*$", f"shared={place}", script)
    for old, new in replaced.items():
        assert old in script
        script = script.replace(old, new)
    path = place / f"{task}.sbatch"
    path.write_text(script)

    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NLBENCH_METHODS": "",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_JOB_ID": f"7{task}",
    }
    return subprocess.Popen(
        ["bash", path],
        cwd=place,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(pattern, place):
    deadline = time.monotonic() + 120
    while not list(place.glob(pattern)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(place.glob(pattern))


@pytest.mark.story
def test_the_tasks_of_an_array_train_the_suite(place):
    suite = SUITE.replace("seeds: [0]", "seeds: [0, 1]")
    tasks = [submit(ARRAY, place, task, suite=suite, **{"/8": "/2"}) for task in (1, 2)]
    ended = [(task.communicate(timeout=240), task.returncode) for task in tasks]

    for (_, err), status in ended:
        assert status == 0, err
    assert len(list(place.glob("results/runs/*/record.json"))) == 4
    printed = {out for (out, _), _ in ended}
    assert any(out.startswith("**trial: ") for out in printed)


@pytest.mark.story
@pytest.mark.parametrize(("script", "number"), [(ARRAY, signal.SIGUSR1), (REQUEUE, signal.SIGTERM)])
def test_a_signal_to_the_script_reaches_the_runs(place, script, number):
    job = submit(script, place, 1, suite=ENDLESS, **{"/8": "/1"})
    wait_for("results/runs/*/checkpoint.pt", place)
    # Only the batch script gets it.
    job.send_signal(number)
    began = time.monotonic()
    _, err = job.communicate(timeout=60)

    assert job.returncode == 143, err
    assert time.monotonic() - began < 15
    assert "Traceback" not in err
    assert list(place.glob("results/runs/*/checkpoint.pt"))
    # Who cancels a job does not want it back.
    assert not (place / "scontrol.txt").exists()


@pytest.mark.story
def test_a_job_whose_time_is_over_puts_itself_back_into_the_queue(place):
    job = submit(REQUEUE, place, 1, suite=ENDLESS, **{"/8": "/1", "5h45m": "40s"})
    _, err = job.communicate(timeout=120)

    assert job.returncode == 75, err
    assert (place / "scontrol.txt").read_text() == "requeue 71\n"
