"""Check that the project's files agree with each other: versions, commands and workflows."""

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"(?m)^([a-z-]+):.* ## ", MAKEFILE))


def read(path: Path) -> dict:
    """Return the content of a YAML file."""
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_exists(path):
    jobs = read(path)["jobs"]

    assert jobs
    for job in jobs.values():
        # Without a limit, a job that hangs would run for six hours.
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            # Either an action or commands of a shell.
            assert ("uses" in step) != ("run" in step)
            commands = step.get("run", "")
            for target in re.findall(r"\bmake ([\w-]+)", commands):
                assert target in TARGETS, f"there is no `make {target}`"
            for file in re.findall(r"(?<!\S)\.ci/\S+", commands):
                assert (ROOT / file).is_file(), file


def test_the_commands_of_contributing_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE))

    assert commands >= {"setup", "check", "test"}
    assert commands <= TARGETS


def test_every_hook_of_pre_commit_is_a_tool_of_the_extra_dev():
    # The program that a hook calls, and the package that provides it.
    tools = {
        "ruff": "ruff",
        "clang-format": "clang-format",
        "codespell": "codespell",
        "check-added-large-files": "pre-commit-hooks",
        "trailing-whitespace-fixer": "pre-commit-hooks",
        "check-merge-conflict": "pre-commit-hooks",
    }
    # Requirements without their versions.
    dev = {re.match(r"[\w-]+", entry)[0] for entry in PROJECT["optional-dependencies"]["dev"]}

    repos = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repos
    for repo in repos:
        assert repo["hooks"]
        for hook in repo["hooks"]:
            assert tools[hook["entry"].split()[0]] in dev


def test_versions_are_the_same_everywhere():
    assert read(ROOT / "CITATION.cff")["version"] == PROJECT["version"]

    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {PROJECT['version']}\n" in changes


def test_each_version_of_the_changelog_has_the_three_kinds():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = changes.split("\n## ")[1:]

    assert sections[0].startswith("Unreleased")
    for section in sections:
        kinds = re.findall(r"(?m)^### (.+)$", section)
        assert set(kinds) <= {"Numbers", "Interface", "Fixes"}
        # A user must learn of every version whether results stay comparable.
        assert "Numbers" in kinds


def test_the_nightly_run_has_what_ci_installs():
    script = (ROOT / ".ci" / "run").read_text()
    nightly = (ROOT / ".github" / "workflows" / "nightly.yml").read_text()

    extras = set(" ".join(re.findall(r"^install_extras (.+)$", script, re.MULTILINE)).split())
    # Style and types are checked by another workflow.
    extras -= {"dev"}
    first = re.search(r"pip install '\.\[(.+)\]'", nightly)[1]
    assert len(extras) > 3
    assert extras <= set(first.split(","))
    assert "npm ci --silent --prefix tests/report" in script
    assert "npm ci --silent --prefix tests/report" in nightly
