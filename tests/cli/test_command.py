"""The command as a whole, and `doctor`."""

import os
import re
import resource
import subprocess
import sys

import pytest
from trial import NLBENCH


def test_doctor_shows_what_is_broken(cli, place):
    well = cli("doctor")
    assert "python 3." in well.stdout
    assert "kernels" in well.stdout
    assert "digits: there" in well.stdout

    (place / "own" / "broken.py").write_text("import no_such_package\n")
    ill = cli("doctor", "--methods-dir", "own")
    assert ill.exit_code == 1
    assert "No module named 'no_such_package'" in ill.stdout


def test_help_answers_at_once(process):
    # Processor time, because other processes of the machine delay the clock on the wall.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = process("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert result.returncode == 0
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    assert user + system < 0.5
    for name in ("run", "table", "list", "show", "data", "noise", "doctor"):
        assert name in result.stdout


# Runs a command, and fails if torch was imported for it.
WITHOUT_TORCH = """
import sys
from nlbench import cli
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
assert 'torch' not in sys.modules
"""


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "run --help",
        "list methods",
        "list datasets",
        "list models",
        "list protocols",
        "list suites",
        "table STORE",
        "table STORE --format csv",
        "show KEY --out STORE",
        "data status",
    ],
)
def test_torch_is_not_imported_by(place, trained, arguments):
    names = {"STORE": str(trained), "KEY": next(trained.glob("runs/*")).name}
    words = [names.get(word, word) for word in arguments.split()]

    command = [sys.executable, "-c", WITHOUT_TORCH, *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_version(cli):
    assert re.fullmatch(r"nlbench \d+\.\d+\S*\n", cli("--version").stdout)


def test_a_reader_that_goes_early_is_no_error(place, trained):
    # `head` closes the pipe after the first line.
    command = f"'{NLBENCH}' table '{trained}' --format csv | head -n 1"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.startswith("suite,")
    assert result.stderr == ""

    # With a buffer the output meets the closed pipe only when Python ends, which is harder.
    environment = dict(os.environ)
    environment.pop("PYTHONUNBUFFERED", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    gone = subprocess.Popen([NLBENCH, "table", trained], text=True, env=environment, **pipes)
    gone.stdout.close()
    assert gone.stderr.read() == ""
    # 128 + SIGPIPE, as other programs end.
    assert gone.wait(60) == 141


def test_a_table_can_be_printed_in_ascii(process, trained):
    result = process("table", trained, env=os.environ | {"PYTHONIOENCODING": "ascii"})

    assert (result.returncode, result.stderr) == (0, "")
    assert "mean?sample std" in result.stdout
