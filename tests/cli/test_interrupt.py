"""A signal ends the command with its own status, also where an exception would be lost."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def ended_by(number, code):
    """Run a command in which `code` calls `interrupt()`. Return its status and what it printed."""
    program = (
        "import os, sys\n"
        "sys.argv = ['nlbench', 'list', 'methods']\n"
        "from nlbench import cli\n"
        f"def interrupt(): os.kill(os.getpid(), {int(number)})\n"
    )
    # In the project's own folder Python would import its sources, which have no methods in them.
    process = subprocess.run(
        [sys.executable, "-c", program + code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parent,
    )
    return process.returncode, process.stderr


IN_DEL = """
from nlbench.cli import interrupt as signals

class Removed:
    def __del__(self):
        interrupt()
        # The exception comes between two operations of Python.
        [number for number in range(1000)]

signals.begin_work()
Removed()
print("went on")
"""

AFTER_ALL = """
from nlbench.cli import app
import typer

context = typer.Context.__mro__[1]
close = context.close

def close_late(self):
    interrupt()
    close(self)

context.close = close_late
cli.main()
"""


@pytest.mark.parametrize("number", list(STATUS))
def test_a_signal_while_python_removes_an_object_is_not_lost(number):
    status, printed = ended_by(number, IN_DEL)
    assert status == STATUS[number]
    assert printed.endswith("the same command continues from here\n")
    assert "Exception ignored" not in printed


@pytest.mark.parametrize("number", list(STATUS))
def test_a_signal_after_the_work_has_its_own_status(number):
    assert ended_by(number, AFTER_ALL) == (STATUS[number], "")
