"""Fixtures of the commands' tests."""

import subprocess

import pytest
from trial import FAILING, NLBENCH, SUITE
from typer.testing import CliRunner

import nlbench
from nlbench.cli import app


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work in a folder that holds trial.yaml, without the machine's data and methods."""
    monkeypatch.chdir(tmp_path)
    # Otherwise a test would depend on what its user has installed and downloaded.
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_DATA", str(tmp_path / "no-data"))
    monkeypatch.delenv("NLBENCH_METHODS", raising=False)

    (tmp_path / "trial.yaml").write_text(SUITE)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "failing.py").write_text(FAILING)
    return tmp_path


@pytest.fixture
def cli(place):
    """Return a function that runs a command in this process: cli("run", "trial.yaml").

    An exception that is not an exit is raised.
    """

    def call(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)

    return call


@pytest.fixture
def refused(cli):
    """Return a function that runs a command which must end with status 2, and returns its message.

    The command may print nothing to standard output.
    """

    def call(*arguments):
        result = cli(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""

        return result.stderr

    return call


@pytest.fixture
def process(place):
    """Return a function that runs the installed command in a process until it ends."""

    def call(*arguments, **options):
        return subprocess.run(
            [NLBENCH, *map(str, arguments)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            **options,
        )

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a store with the two runs of the trial suite."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "trial.yaml").write_text(SUITE)
    nlbench.run(folder / "trial.yaml", out=folder / "store")
    return folder / "store"
