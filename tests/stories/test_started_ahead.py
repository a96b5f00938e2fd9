"""The process that was started ahead makes those of the runs, and none is left afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweeps import method_file
from trial import SUITE

pytestmark = pytest.mark.story

# The process of a run adds the process that has made it to a file.
RUN_OF = """
    class RunOf(Method):
        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)

        def on_epoch_end(self, run, epoch):
            with open(os.environ["NLBENCH_TEST_PARENTS"], "a") as file:
                file.write(f"{os.getppid()}\\n")
"""

# Notes each fork server that a command starts, and whether torch was imported by then.
NOTING = """
import sys
from nlbench.executors import _fork_server

class Noted(_fork_server.ForkServer):
    def __init__(self):
        super().__init__()
        print("server", self.pid, "torch" in sys.modules, file=sys.stderr)

_fork_server.ForkServer = Noted
"""

COMMAND = """
sys.argv = ["nlbench", "run", "trial.yaml", "--methods-dir", "own", *sys.argv[1:]]
from nlbench import cli
cli.main()
"""

PYTHON = """
import nlbench
nlbench.run("trial.yaml", methods_dir="own", progress=False)
"""


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a suite of two runs, whose file has another name than the suite."""
    method_file(tmp_path / "own", "run_of", RUN_OF)
    suite = SUITE.replace("ce: {}\n  gce: {}", "run-of: {}").replace("[0]", "[0, 1]")
    (tmp_path / "trial.yaml").write_text(suite.replace("name: trial", "name: two.runs"))
    return tmp_path


def noted(folder, program, *options, status=0):
    """Run a program. Return the fork servers that it has started, and the parents of its runs."""
    parents = folder / "parents"
    parents.write_text("")
    process = subprocess.run(
        [sys.executable, "-c", NOTING + program, *options],
        cwd=folder,
        env={**os.environ, "NLBENCH_TEST_PARENTS": str(parents)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert process.returncode == status, process.stderr
    lines = [line.split() for line in process.stderr.splitlines() if line.startswith("server ")]
    servers = [(int(pid), had_torch == "True") for _, pid, had_torch in lines]
    return servers, [int(pid) for pid in parents.read_text().split()]


def is_there(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("program", [COMMAND, PYTHON], ids=["command", "python"])
def test_the_runs_come_from_the_one_process_that_was_started_ahead(folder, program):
    servers, parents = noted(folder, program)
    ((pid, had_torch),) = servers
    assert not had_torch
    assert parents == [pid, pid]
    assert not is_there(pid)

    # Nothing is left to do, and none is started.
    assert noted(folder, program) == ([], [])


def test_none_is_left_after_a_suite_that_is_wrong_or_trains_nothing(folder):
    text = (folder / "trial.yaml").read_text()
    (folder / "trial.yaml").write_text(text.replace("protocol: digits", "protocol: digit"))
    ((pid, _),), parents = noted(folder, COMMAND, status=2)
    assert not is_there(pid)
    assert parents == []

    (folder / "trial.yaml").write_text(text)
    assert noted(folder, COMMAND, "--dry-run") == ([], [])
    assert noted(folder, COMMAND, "--executor", "local")[0] == []
