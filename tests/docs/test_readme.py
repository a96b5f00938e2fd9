"""Parse every nlbench command that the README shows."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from nlbench.cli.app import app

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
SHOWN = [line for block in BLOCKS for line in block.splitlines() if line.startswith("nlbench ")]


def test_the_readme_shows_commands():
    assert len(SHOWN) >= 10


@pytest.mark.parametrize("line", SHOWN)
def test_a_shown_command_parses(line):
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    context = command.make_context("nlbench", list(words))

    # `data` and `noise` are groups of commands, as nlbench is.
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        _, command, words = command.resolve_command(context, rest)
        context = command.make_context(command.name, list(words), parent=context)
