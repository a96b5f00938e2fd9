"""Parse every nlbench command that a page shows, and look for the files that others name."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from nlbench.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def commands_of(page: Path) -> list[list[str]]:
    """Return the words of each command in the `sh` blocks of a page.

    A pipe or `&&` begins another command. Comments, variables in front of a command, and what
    follows a redirection are left out.
    """
    found = []
    for block in re.findall(r"(?ms)^```sh\n(.*?)^```", page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.split(r" (?:\||&&) ", line):
                words = shlex.split(re.split(r" \d?>", command)[0], comments=True)
                while words and re.match(r"\w+=", words[0]):
                    del words[0]
                if words:
                    found.append(words)
    return found


SHOWN, RUNNING_FILES = [], []
for shown_on in PAGES:
    for shown in commands_of(shown_on):
        name = f"{shown_on.relative_to(ROOT)}: {shlex.join(shown)}"
        # To parse this one would change the shell's settings of whoever runs the tests.
        if shown == ["nlbench", "--install-completion"]:
            continue
        # README has one as .venv/bin/nlbench.
        if Path(shown[0]).name == "nlbench":
            SHOWN.append(pytest.param(shown[1:], id=name))
        elif {"python", "pytest"} & set(shown) and "-c" not in shown:
            RUNNING_FILES.append(pytest.param(shown_on, shown, id=name))


# Without this, a mistake in reading the pages would let all other tests pass.
def test_the_pages_show_commands():
    readme = [words for words in commands_of(ROOT / "README.md") if words[0] == "nlbench"]

    assert len(readme) >= 10
    assert len(SHOWN) >= 50
    assert len(RUNNING_FILES) >= 8


@pytest.mark.parametrize("words", SHOWN)
def test_a_shown_command_parses(words):
    command = typer.main.get_command(app)
    context = command.make_context("nlbench", list(words))

    # `data` and `noise` are groups of commands, as nlbench is.
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        _, command, words = command.resolve_command(context, rest)
        context = command.make_context(command.name, list(words), parent=context)


@pytest.mark.parametrize(("page", "words"), RUNNING_FILES)
def test_the_files_of_a_shown_command_exist(page, words):
    # A block of code whose first line is a path tells the reader to write that file.
    written = re.findall(r"(?m)^# (\S+)$", page.read_text(encoding="utf-8"))
    for word in words:
        # A script, a folder of tests, or one test of a file.
        if re.search(r"\.py\b", word) or word.startswith("tests/"):
            path = word.partition("::")[0]
            assert path in written or (ROOT / path).exists(), f"{path} does not exist"
