"""Names and messages of other people: nothing in them reaches the terminal but what is shown."""

import json
import re
import warnings

import pytest
from layouts import write_image
from rich.console import Console

import nlbench
from nlbench.errors import on_one_line, printable
from nlbench.executors import progress
from nlbench.plan.spec import key_of
from nlbench.results.integrity import with_checksums
from nlbench.results.plan_file import with_checksum

# Clears the screen, writes to the clipboard, ends the line early, and turns the text around.
EVIL = "x\x1b[2J\x1b]52;c;cm0gLXJm\x07\r\x9b31m\u202egpj\u2066\x00"
STEERING = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe ± 1\t40 %\nend\n", "Größe ± 1\t40 %\nend\n"),
        ("two\r\nlines", "two\nlines"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("over\rwritten\x08\x7f\x9b", r"over\rwritten\x08\x7f\x9b"),
        ("a\u202eb\u2067c\u200f", r"a\u202eb\u2067c\u200f"),
        ("end\u2028of\u2029line", r"end\u2028of\u2029line"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        # Joiners that names need.
        (
            "\u0646\u200c\u0645 \U0001f469\u200d\U0001f52c",
            "\u0646\u200c\u0645 \U0001f469\u200d\U0001f52c",
        ),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown
    # Once more changes nothing.
    assert printable(printable(text)) == printable(text)


def test_a_name_on_one_line():
    assert on_one_line("a\r\n\tb\x1bc\u202ed\x00\x00e") == "a b c d e"


def plain(result):
    """Return what a command has printed, after checking that nothing steers a terminal."""
    for text in (result.stdout, result.stderr):
        assert not STEERING.search(text), ascii(STEERING.search(text)[0])
    return result.stdout + result.stderr


@pytest.fixture
def evil_store(place):
    """Return a store whose records and plan are whole, and whose texts are evil."""
    out = place / "results"
    spec = {
        "method": EVIL, "params": {EVIL: EVIL}, "dataset": EVIL, "labels": EVIL, "noise": None,
        "protocol": {"name": EVIL, "model": EVIL}, "seed": 0,
    }  # fmt: skip
    record = {
        "key": key_of(spec), "status": "done", "spec": spec, "metrics": {"last": 0.5},
        "noise": {"noise_rate_train": 0.4, "num_train": 5, "num_test": 5, "variant": EVIL},
        "timing": {}, "environment": {"device": EVIL, "device_name": EVIL, "torch": EVIL},
        "method": {"own_optimisers": [EVIL], "signs": [EVIL]}, "code": EVIL,
        "classes": {"num_classes": 1, "names": [EVIL], "train": [5], "test": [5],
                    "data_warnings": [EVIL]},
        "warnings": [EVIL], "error": {"message": EVIL, "traceback": EVIL},
    }  # fmt: skip
    plan = {
        "schema": 1, "suite": "s", "track": EVIL, "protocol": EVIL, "notes": [EVIL],
        "tries": False, "rows": [{"row": EVIL, "method": EVIL, "told": [EVIL], "networks": 1}],
        "conditions": [EVIL], "seeds": [0],
        "cells": [{"row": EVIL, "condition": 0, "seed": 0, "key": key_of(spec)}],
        "method_files": {EVIL: EVIL},
    }  # fmt: skip
    (out / "suites").mkdir(parents=True)
    (out / "suites" / "s.json").write_text(json.dumps(with_checksum(plan)))
    # A damaged plan, whose message names its own name.
    (out / "suites" / "d\x1b[31m.json").write_text("{")
    folder = out / "runs" / key_of(spec)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(with_checksums(record, {})))
    return out


COMMANDS = [
    ["table"], ["table", "--details"], ["table", "--format", "csv"], ["table", "--format", "latex"],
    ["table", "--published"], ["table", "--suite", EVIL], ["table", "--only", EVIL],
    ["table", "--columns", EVIL],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=[" ".join(map(ascii, c)) for c in COMMANDS])
def test_a_table_of_somebody_elses_store(cli, evil_store, command):
    first, *options = command
    text = plain(cli(first, evil_store, *options))
    assert "x" in text


def test_other_commands_on_somebody_elses_store(cli, evil_store):
    key = next((evil_store / "runs").iterdir()).name
    for command in (
        ["show", key, "--out", evil_store], ["show", "", "--out", evil_store],
        ["show", EVIL, "--out", evil_store], ["agreement", "s", "s", "--out", evil_store],
        ["agreement", "s", "published", "--out", evil_store], ["forget", EVIL, "--out", evil_store],
    ):  # fmt: skip
        plain(cli(*command))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nlbench.load(evil_store)
    assert caught
    assert not any(STEERING.search(str(warning.message)) for warning in caught)


def test_suites_and_settings(cli, place):
    text = """\
name: "{0}"
protocol: "{0}"
datasets: [{{name: "{0}", labels: ["{0}"]}}, {{name: folder, path: "a{0}"}}]
methods: {{"{0}": {{"{0}": 1}}, ce: {{"{0}": "{0}"}}}}
seeds: [0]
overrides: {{"{0}": "{0}"}}
"""
    # As YAML writes them between double quotes.
    (place / "evil.yaml").write_text(text.format(json.dumps(EVIL)[1:-1]))
    assert "evil.yaml" in plain(cli("run", "evil.yaml"))
    name = EVIL.replace("\0", "")
    (place / f"{name}.yaml").write_text("x")
    plain(cli("run", f"{name}.yaml"))
    plain(cli("run", "trial.yaml", "--set", f"epochs={EVIL}"))
    plain(cli("run", "trial.yaml", "--only", EVIL))


def test_folders_of_pictures(cli, place, monkeypatch):
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    evil = EVIL.replace("\0", "")
    for number in range(2):
        write_image(place / "data" / evil / f"{number}.png", number=number)
        write_image(place / "data" / "dog" / f"{number}.png", 1, number)
    (place / "data" / "dog" / f"{evil}.png").write_bytes(b"no picture")
    text = plain(cli("data", "check", place / "data"))
    assert r"x\x1b[2J" in text
    assert "broken: 1 of 5" in text


def test_the_progress_of_a_sweep(capsys, monkeypatch):
    class Spec:
        key, row, seed = "k", EVIL, 0
        condition = type("Condition", (), {"title": EVIL})

    monkeypatch.setattr(progress, "_console", lambda: Console(stderr=True, force_terminal=False))
    with progress.Progress(1) as shown:
        shown.on_resume(Spec, 1, 2)
        shown.on_stop(EVIL)
        shown._print_trace(type("Record", (), {
            "error": {"traceback": EVIL}, "error_type": "", "error_message": EVIL})())  # fmt: skip
    text = capsys.readouterr().err
    assert r"x\x1b[2J" in text
    assert not STEERING.search(text)

    # What a live line shows.
    line = progress._Line("{task.description}").render(type("Task", (), {"description": EVIL}))
    assert not STEERING.search(line.plain)
