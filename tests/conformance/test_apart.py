"""A method that ends, stops or spoils its process fails `nlbench check`, whatever it ends with."""

import pytest
from typer.testing import CliRunner
from written_methods import CE, HEAD, loss, members, write

from nlbench.cli.app import app
from nlbench.conformance import apart

# A line that the loss executes, and what the failed check must say.
ENDS = {
    "os._exit(0)": "the method ended its process with status 0",
    "os.abort()": "the method was ended by SIGABRT",
    "os.kill(os.getpid(), 9)": "the method was ended by SIGKILL",
    "raise KeyboardInterrupt": "the method raises KeyboardInterrupt",
    "sys.exit(0)": "SystemExit: 0",
    "os.closerange(3, 100); os._exit(3)": "the method ended its process with status 3",
}


# Each starts a process that imports torch.
OFTEN = {"os._exit(0)", "os.abort()"}


@pytest.mark.parametrize(
    "line",
    [line if line in OFTEN else pytest.param(line, marks=pytest.mark.nightly) for line in ENDS],
)
def test_an_end_of_the_process_fails_the_check(tmp_path, line):
    path = write(tmp_path, members(loss(line)), f"{HEAD}import os\n")
    by_name = {result.name: result for result in apart.results(path, only=["2-classes"])}
    assert {name: result.status for name, result in by_name.items()} == {
        "import": "ok",
        "build": "ok",
        "train": "FAIL",
        "2-classes": "skipped",
    }
    assert ENDS[line] in by_name["train"].message


@pytest.mark.nightly
def test_an_endless_loop_is_ended(tmp_path):
    path = write(tmp_path, members(loss("while True: pass")))
    *_, last = apart.results(path, only=["train"], patience=20.0)
    assert last.status == "FAIL"
    assert "does not end within 20 seconds, last seen in" in last.message
    assert "a loop that never ends?" in last.message
    assert "must not end its process" not in last.message


def test_an_end_at_the_import_ends_the_command_with_status_1(tmp_path):
    path = write(tmp_path, members(CE), f"{HEAD}import os\nos._exit(0)\n")
    done = CliRunner().invoke(app, ["check", str(path), "--only", "source"])
    assert done.exit_code == 1
    assert "FAIL     import " in done.stdout
    assert "the method ended its process with status 0" in done.stdout
