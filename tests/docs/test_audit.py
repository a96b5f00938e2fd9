"""`.ci/audit` tells a vulnerability from a network that is not there."""

import importlib.machinery
import importlib.util
import json
import subprocess
import urllib.error
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / ".ci" / "audit"
REPORT = {
    "dependencies": [
        {"name": "torch", "version": "2.8.0", "vulns": []},
        {"name": "own", "skip_reason": "Dependency not found on PyPI"},
    ]
}
FOUND = {"id": "PYSEC-1", "fix_versions": ["2.9.1"]}


@pytest.fixture
def audit(monkeypatch):
    """Return the script as a module, whose list can be reached."""
    loader = importlib.machinery.SourceFileLoader("audit", str(PATH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("audit", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module, "why_unreachable", lambda: "")
    return module


def answer(audit, monkeypatch, report, complaints="", status=0):
    """Let pip-audit answer so, and return the exit status of the script."""
    text = report if isinstance(report, str) else json.dumps(report)
    done = subprocess.CompletedProcess([], status, text, complaints)
    monkeypatch.setattr(audit, "pip_audit", lambda requirements: done)
    return audit.main()


def test_nothing_known_is_status_0(audit, monkeypatch, capsys):
    assert answer(audit, monkeypatch, REPORT) == 0
    out = capsys.readouterr().out
    assert "not known there: own" in out
    assert ", 0 known vulnerabilities" in out


def test_a_vulnerability_is_status_1_and_named(audit, monkeypatch, capsys):
    torch = {"name": "torch", "version": "2.8.0", "vulns": [FOUND]}
    assert answer(audit, monkeypatch, {"dependencies": [torch]}, status=1) == 1
    assert "audit: torch 2.8.0: PYSEC-1, fixed in 2.9.1" in capsys.readouterr().out


def test_a_lost_connection_is_status_0_and_another_failure_is_not(audit, monkeypatch, capsys):
    lost = "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed"
    assert answer(audit, monkeypatch, "", lost, status=1) == 0
    assert "the connection was lost" in capsys.readouterr().out
    assert answer(audit, monkeypatch, "", "ERROR: no such option", status=2) == 2
    assert "no such option" in capsys.readouterr().out
    # A mirror that has the packages and not the list would otherwise find nothing, for ever.
    assert answer(audit, monkeypatch, {"dependencies": REPORT["dependencies"][1:]}) == 2


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Name or service not known"),
        urllib.error.HTTPError("x", 404, "Not Found", None, None),
        TimeoutError("timed out"),
        ConnectionResetError(),
    ],
)
def test_without_a_network_nothing_is_asked_and_that_is_said(audit, monkeypatch, capsys, error):
    def refuse(*args, **kwargs):
        raise error

    loader = importlib.machinery.SourceFileLoader("again", str(PATH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("again", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module.urllib.request, "urlopen", refuse)
    monkeypatch.setattr(module, "pip_audit", None)
    assert module.main() == 0
    assert "audit: nothing was asked, because" in capsys.readouterr().out


def test_an_answer_that_never_comes_ends_the_wait(audit, monkeypatch, capsys):
    def hang(requirements):
        raise subprocess.TimeoutExpired("pip-audit", 300)

    monkeypatch.setattr(audit, "pip_audit", hang)
    assert audit.main() == 0
    assert "no answer within 300 seconds" in capsys.readouterr().out


def test_versions_are_those_of_pypi(audit):
    packages = audit.installed()
    assert "nlbench" not in packages
    assert "torch" in packages
    assert not any("+" in version for version in packages.values())


def test_ci_asks_and_the_extra_has_pip_audit():
    root = PATH.parents[1]
    assert ".venv/bin/python .ci/audit" in (root / ".ci" / "run").read_text()
    assert '"pip-audit>=' in (root / "pyproject.toml").read_text()
    assert "python .ci/audit" in (root / ".github" / "workflows" / "lint.yml").read_text()
