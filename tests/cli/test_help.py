"""Help texts, the order of commands, completion, and options of which one does nothing."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import typer
from trial import NLBENCH

from nlbench import registry
from nlbench.cli import app
from nlbench.cli.app import ORDER
from nlbench.results.metrics import METRICS


def commands(command, path=()):
    """Yield every command and group with the words that call it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


ROOT = typer.main.get_command(app)
ALL = {" ".join(path): command for path, command in commands(ROOT)}


def help_of(words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    context = ROOT.make_context("nlbench", [], resilient_parsing=True)
    command = ROOT
    for word in words.split():
        command = command.commands[word]
        context = command.make_context(word, [], parent=context, resilient_parsing=True)
    return command.get_help(context)


def examples_of(text):
    """Return the words of each command line that a help text shows."""
    lines = text.split("Examples:\n")[1].splitlines()
    return [shlex.split(line.split(" > ")[0], comments=True) for line in lines if line.strip()]


# Without this, a mistake in finding the commands would let all other tests pass.
def test_all_commands_are_found():
    assert {"run", "table", "show", "data status", "noise export", ""} <= set(ALL)


@pytest.mark.parametrize("words", sorted(ALL))
def test_a_help_text_fits_80_columns_and_is_not_cut(words, monkeypatch):
    text = help_of(words, monkeypatch)

    assert max(map(len, text.splitlines())) <= 80
    # An ellipsis is where click cuts a description; "[ARGS]..." is an argument, as is "[KEY]...".
    assert "..." not in re.sub(r"\[[A-Z]+\]\.\.\.", "", text)


@pytest.mark.parametrize("words", sorted(ALL))
def test_a_help_text_has_examples_that_parse(words, monkeypatch):
    shown = examples_of(help_of(words, monkeypatch))

    assert shown
    for program, *arguments in shown:
        assert program == "nlbench"
        if "--help" in arguments or "--install-completion" in arguments:
            continue
        assert " ".join(arguments).startswith(words)
        command = ROOT
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        command.make_context(command.name, arguments)


def test_every_option_says_what_it_does(monkeypatch):
    for words, command in ALL.items():
        for parameter in command.params:
            if parameter.name not in ("help", "install_completion", "show_completion"):
                assert parameter.help, f"nlbench {words}: {parameter.name}"


def test_the_commands_are_in_the_order_of_a_beginner(monkeypatch):
    text = help_of("", monkeypatch).split("Commands:\n")[1].split("Examples:")[0]
    shown = re.findall(r"(?m)^  ([a-z-]+)  ", text)

    assert shown[:4] == ["run", "table", "list", "show"]
    assert shown == [name for name in ORDER if name in shown]
    assert set(shown) == set(ROOT.commands)


@pytest.mark.parametrize("words", ["table", "agreement", "compare"])
def test_metric_lists_all_its_values(words, monkeypatch):
    text = help_of(words, monkeypatch).split("--metric")[1]
    named = re.findall(r"[\w-]+", text.split("--")[0])

    assert set(METRICS) <= set(named)


# ---- Completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("nlbench ta", ["table"]),
        ("nlbench run qui", ["quick"]),
        ("nlbench run tri", ["trial.yaml"]),
        ("nlbench check boot", ["bootstrap"]),
        ("nlbench data status cifar10", ["cifar10", "cifar10n"]),
        ("nlbench show method el", ["elr", "elr-plus"]),
        ("nlbench list mod", ["models"]),
    ],
)
def test_names_are_completed(place, line, some):
    words = line.split()
    environment = {
        "_NLBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    found = subprocess.run(
        [NLBENCH], env=os.environ | environment, capture_output=True, text=True, check=False
    )

    assert set(some) <= set(found.stdout.split()), found.stderr


# ---- Options of which one does nothing -----------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ("run trial.yaml --debug --dry-run", "--debug and --dry-run exclude each other"),
        ("run trial.yaml --debug --save-weights", "--debug and --save-weights exclude each other"),
        ("run trial.yaml --debug --timeout 1", "--debug and --timeout exclude each other"),
        ("run trial.yaml --debug --jobs 2", "--debug and --jobs exclude each other"),
        ("run trial.yaml --debug --gpus 0,1", "--debug and several GPUs exclude each other"),
        ("run trial.yaml --cuda-graphs --device cpu", "--cuda-graphs and --device cpu exclude"),
        ("run trial.yaml --whole-steps --device cpu", "--whole-steps and --device cpu exclude"),
        ("table STORE --metric last --against gce", "--metric and --against exclude each other"),
        ("table STORE --details --format csv", "--details and --format csv exclude each other"),
        ("table STORE --only '' ", "--only '': write rows as ce,elr"),
        ("table STORE --columns last,", "--columns 'last,': write columns as last,best"),
        ("table STORE --only cee", "--only cee: no such row. There are: ce, gce. Did you mean"),
        ("agreement trial published --out STORE --out-b x", "--out-b is for a second suite"),
        ("list suites --methods-dir own", "--methods-dir is for `nlbench list methods`"),
        ("show abc --methods-dir own", "--methods-dir is for `nlbench show method NAME`"),
        ("show method elr --out x", "--out is for records"),
        ("show method", "method: give its name, too"),
        ("show abc elr", "give one key, or `nlbench show method elr`"),
        ("show method elrr", "unknown method 'elrr'.*Did you mean 'elr'"),
        ("show method own/failing.py --methods-dir own", "is a file; --methods-dir is for"),
        ("check own/failing.py --methods-dir own", "is a file; --methods-dir is for"),
        ("bench --threads 2 --device cuda", "--threads and --device cuda exclude each other"),
    ],
)
def test_options_of_which_one_does_nothing_are_refused(refused, trained, words, pattern):
    message = refused(*(str(trained) if w == "STORE" else w for w in shlex.split(words)))

    assert re.search(pattern, message), message


# ---- What is printed -----------------------------------------------------------------------------


def test_only_prints_these_rows(cli, place):
    result = cli("run", "trial.yaml", "--only", "gce")
    rows = re.findall(r"(?m)^\| (\w+)", result.stdout)

    # The row that differences are taken to is there, although it has no runs.
    assert rows == ["method", "ce", "gce"]
    assert "left" not in result.stdout

    assert re.findall(r"(?m)^\| (\w+)", cli("table", "results", "--only", "ce").stdout) == [
        "method",
        "ce",
    ]
    assert "1 of 2 rows are not shown" in cli("table", "results", "--only", "ce").stdout


def test_a_condition_is_trained_and_shown_alone(cli, refused, place):
    suite = (place / "trial.yaml").read_text()
    (place / "trial.yaml").write_text(suite.replace("rate: 0.4", "rate: [0.2, 0.4]"))

    result = cli("run", "trial.yaml", "--condition", "0.4", "--only", "ce")
    assert result.exit_code == 0
    assert "Digits symmetric 0.4; test accuracy" in " ".join(result.stdout.split())
    assert "0.2" not in result.stdout

    shown = cli("table", "results", "--condition", "Digits symmetric 0.2", "--columns", "last")
    assert "Digits symmetric 0.2; test accuracy" in " ".join(shown.stdout.split())
    assert "0.4" not in shown.stdout
    message = refused("run", "trial.yaml", "--condition", "symmetric")
    assert "--condition 'symmetric' fits several of trial: 'Digits symmetric 0.2'" in message


def test_a_table_in_a_narrow_terminal(place, trained):
    # COLUMNS is the width of what the command takes for a terminal.
    code = f"import os, sys; sys.argv[1:] = ['table', {str(trained)!r}]; " + (
        "sys.stdout.isatty = lambda: True; from nlbench.cli import main; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"COLUMNS": "60"},
        capture_output=True,
        text=True,
        check=False,
    )
    text = [line for line in found.stdout.splitlines() if not line.startswith("|")]

    assert max(map(len, text)) <= 60
    assert max(len(line) for line in found.stdout.splitlines()) <= 80


# ---- show method ---------------------------------------------------------------------------------


def test_show_method_tells_hyperparameters_and_their_sources(cli):
    text = cli("show", "method", "elr").stdout

    assert "arXiv:2007.00151" in text
    for fact in (
        "trusted:  equal to values of the authors' code: loss, gradient and targets, four\n"
        "          steps (tests/methods/test_elr.py)\n",
        "source:   As in the authors' code, shengliu66/ELR: the clamp,",
        "networks: 1\n",
        "cost:     1 pass, for each training example and epoch\n",
        "keeps:    40 bytes per example, with 10 classes\n",
        "what it computes, and what differs from its source:\n",
    ):
        assert fact in text
    assert "  lam: float = 3.0\n      authors, CIFAR-10; CIFAR-100: 7\n" in text


def test_show_method_of_a_file_says_nothing_of_the_shipped_method_of_its_name(cli, tmp_path):
    file = tmp_path / "elr.py"
    shutil.copyfile(registry.method_files()["elr"].path, file)
    shipped, own = (cli("show", "method", name).stdout for name in ("elr", str(file)))
    for heading in ("trusted:", "cost:", "keeps:"):
        assert heading in shipped
        assert heading not in own


def test_show_method_tells_once_where_all_defaults_are_from(cli):
    text = cli("show", "method", "cal").stdout
    common = "  All defaults are from the authors' code, for CIFAR-10.\n"
    assert text.count(common) == 1
    assert common + "  first_alpha: float = 2.0\n      at the end of the ramp" in text


def test_show_method_tells_what_a_choice_changes(cli):
    assert "networks: 2; 1 with networks: 1" in cli("show", "method", "elr-plus").stdout
    assert "T with T: true" in cli("show", "method", "forward").stdout
    assert "is told:  noise_rate" in cli("show", "method", "co-teaching").stdout


def test_show_method_of_a_folder(cli, place):
    (place / "own" / "mine.py").write_text(
        '''"""Mine. Unpublished.

Does this:
- one thing
  and more
"""
from nlbench.method import Method, Task

class Mine(Method):
    def __init__(
        self,
        task: Task,
        need: float,
        # Measured here, on
        # two datasets.
        beta: float = 1 / 3,
        *,
        gamma: int = 3,  # ours
    ):
        super().__init__(task)

    def loss(self, logits, batch):
        return logits.sum()
'''
    )
    for arguments in (["mine", "--methods-dir", "own"], ["own/mine.py"]):
        text = cli("show", "method", *arguments).stdout

        assert "  need: float no default, so a suite must set it\n" in text
        assert "  beta: float = 0.3333\n      Measured here, on two datasets.\n" in text
        assert "  gamma: int = 3\n      ours\n" in text
        assert "    mine: {need: ...}\n" in text
        assert "- one thing and more\n" in text
        # These are known of shipped methods alone.
        assert not re.search("^(trusted|source|cost|keeps):", text, re.MULTILINE)


def test_show_method_wraps_text_and_choices_and_leaves_formulas(cli, place):
    formula = "    " + " + ".join(["alpha * x"] * 8)
    choices = [f"a-choice-with-a-long-name-{i}" for i in range(4)]
    (place / "own" / "wide.py").write_text(
        f'''"""Wide. Unpublished.

1. {" ".join(["One"] * 19)}
   and two:

{formula}

   where {" ".join(["three"] * 13)}
   four.
And five.
"""
from typing import Literal

from nlbench.method import Method

class Wide(Method):
    def __init__(self, task, kind: Literal{choices} = {choices[0]!r}):
        super().__init__(task)

    def loss(self, logits, batch):
        return logits.sum()
'''
    )
    text = cli("show", "method", "own/wide.py").stdout

    assert f"One\n   and two:\n\n{formula}\n\n   where three" in text
    assert "three\n   three four.\nAnd five.\n" in text
    assert f"or\n        '{choices[2]}' or '{choices[3]}' =\n        '{choices[0]}'\n" in text
    for line in text.splitlines():
        assert len(line) <= 80 or line.startswith(("file:", formula))


@pytest.mark.methods
def test_show_method_of_every_method_fits_80_columns(cli):
    listed = cli("list", "methods", "--methods-dir", "own").stdout
    for name in [line.split()[0] for line in listed.splitlines()]:
        text = cli("show", "method", name, "--methods-dir", "own").stdout
        for line in text.splitlines():
            assert len(line) <= 80 or line.startswith(("file:", "    ")), line


# ---- Lines in a terminal -------------------------------------------------------------------------


def in_terminal(arguments, columns=60):
    """Run a command that takes its output for a terminal; return what it prints."""
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "sys.stdout.isatty = sys.stderr.isatty = lambda: True\n"
        "from nlbench.cli import main; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout + found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "suites"],
        ["list", "methods"],
        ["run", "quik"],
        ["run", "trial.yaml", "--only", "x"],
    ],
)
def test_lines_in_a_terminal_are_wrapped_at_words(place, arguments):
    text = in_terminal(arguments)

    assert max(map(len, text.splitlines())) <= 60
    # The words are those of the whole text.
    assert set(text.split()) == set(in_terminal(arguments, 1000).split())


def test_lines_that_go_elsewhere_are_as_they_are(cli, refused):
    for line in cli("list", "suites").stdout.splitlines():
        assert not line.startswith(" ")
    assert len(refused("run", "quik").splitlines()) == 1


def test_unknown_methods_are_explained_once(refused, place):
    text = (place / "trial.yaml").read_text().replace("  gce: {}", "  my-a: {}\n  my-b: {}")
    (place / "two.yaml").write_text(text)
    message = refused("run", "two.yaml")

    assert message.count("unknown method") == 2
    assert message.count("The methods are: ") == message.count("--methods-dir FOLDER") == 1
