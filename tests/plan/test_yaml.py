"""YAML that no suite would hold: every text ends in a value or in a message, and soon."""

import random
import time

import pytest

from nlbench.data.places import Places
from nlbench.errors import SuiteError, UserError
from nlbench.plan.expand import expand
from nlbench.plan.options import parse_set
from nlbench.plan.suite_file import MOST_IN_NAME, read_suite
from nlbench.plan.yaml_lines import NotYaml, parse_yaml, plain

SUITE = """\
name: trial
protocol: digits
datasets:
  - {name: digits, noise: {kind: symmetric, rate: 0.4}, noise_rate: 0.2, transition: T.csv}
  - {name: folder, path: ~/birds, labels: [given, clean]}
methods:
  ce: {}
  elr: {beta: 0.7, per_dataset: {digits: {lam: 2.0}}, search: {lam: [1, 2]}}
  forward: {T: true}
seeds: [0, 1]
overrides: {epochs: 2, schedule: {kind: constant}, weights: ~/w.pth}
"""


def of_aliases(first, again):
    """Return nine lines of which each holds nine aliases of the line before."""
    lines = [f"a0: &a0 {first}"]
    for i in range(1, 10):
        aliases = ",".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} {again.format(aliases)}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (of_aliases("[x,x]", "[{}]"), "its aliases .* stand for more than 100,000 values"),
        (of_aliases("{k: 1}", "{{<<: [{}]}}"), "its aliases .* stand for more than 100,000 values"),
        ("a: &a [*a]", "an alias .* stands for the value that it is in"),
        ("&a {b: *a}", "an alias .* stands for the value that it is in"),
        ("[" * 60 + "]" * 60, "nested more than 50 levels"),
        ("{a: " * 400 + "}" * 400, "nested"),
        ("- " * 250 + "x", "nested"),
        ("? " * 200 + "x", "a key is a list or a mapping"),
        ("{a: b}: c", "a key is a list or a mapping"),
        ("[1, 2]: x", "a key is a list or a mapping"),
        ("? &a [*a]\n: 1", "a key is a list or a mapping"),
        ("x" * 400_000, "too long for a suite: 400,000 characters"),
        # With 300,000 characters these would take a minute and more.
        ("[" * 200 + "a," * 2000 + "]" * 200, "nested more than 50 levels"),
        ("b: &b {a: 1}\n" + "k: {<<: *b}\n" * 1100, r"more than 1,000 merges \(<<\)"),
        ("a: !!int", "the tag '!!int' may not fit its value"),
        ("a: !!float ''", "the tag '!!float' may not fit its value"),
        ("a: !!bool networks", "the tag '!!bool' may not fit its value"),
        ("a: !!set b", "the tag '!!set' may not fit its value"),
        ("a: " + "9" * 5000, "not valid YAML"),
    ],
)
def test_a_text_that_would_take_forever_or_raise_anything_is_refused_at_once(text, said, tmp_path):
    began = time.monotonic()
    with pytest.raises(NotYaml, match=said):
        parse_yaml(text)
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(SuiteError, match=rf"t\.yaml(:\d+:\d+)?: .*{said}"):
        read_suite(path)
    with pytest.raises(SuiteError, match=rf"(?s)--set epochs=.*{said}"):
        parse_set([f"epochs={text}"])
    # The first of them would take days.
    assert time.monotonic() - began < 5


def test_aliases_and_merges_of_an_honest_suite_are_read():
    value = plain(parse_yaml("base: &b {lr: 0.1}\nother: {<<: *b, epochs: 2}\nmore: [*b, *b]"))
    assert value == {
        "base": {"lr": 0.1},
        "other": {"lr": 0.1, "epochs": 2},
        "more": [{"lr": 0.1}, {"lr": 0.1}],
    }


def test_a_mapping_that_contains_itself_is_refused():
    suite = {"name": "t", "protocol": "digits", "datasets": [{"name": "digits"}], "seeds": [0]}
    suite["methods"] = suite
    with pytest.raises(SuiteError, match="suite: lists or mappings are nested more than 50"):
        read_suite(suite)


def test_a_number_of_thousands_of_digits_is_quoted_in_words(tmp_path):
    with pytest.raises(SuiteError, match=r"epochs: .* got a number of thousands of digits"):
        expanded({"epochs": int("f" * 5000, 16)}, tmp_path)


def expanded(settings, tmp_path, **more):
    mapping = {
        "name": "t", "protocol": "digits", "datasets": [{"name": "digits"}],
        "methods": {"ce": {}}, "seeds": [0], **more,
    }  # fmt: skip
    suite, problems = read_suite(mapping)
    places = Places(tmp_path / "no-data", tmp_path / "cache")
    return expand(suite, problems, places=places, settings=settings)


def test_a_name_that_is_too_long_for_a_file(tmp_path):
    with pytest.raises(SuiteError, match="name: must have at most 100 characters"):
        expanded({}, tmp_path, name="x" * 101)

    # Values of --set are shortened, and differ by a hash.
    name = "y" * MOST_IN_NAME
    assert expanded({"epochs": 2}, tmp_path, name=name).name == f"{name}+epochs=2"
    many = dict.fromkeys(("epochs", "batch_size", "threads"), 2) | {
        "lr": 0.123456789012345, "weight_decay": 0.000123456789, "momentum": 0.123456789012345,
        "val_fraction": 0.123456789012345,
    }  # fmt: skip
    one = expanded(many, tmp_path, name=name).name
    other = expanded(many | {"val_fraction": 0.2}, tmp_path, name=name).name
    assert max(len(one), len(other)) < 130
    assert one != other


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "~nobody-of-this-name/x"])
def test_paths_that_no_file_can_have(tmp_path, monkeypatch, name):
    monkeypatch.delenv("HOME", raising=False)
    said = "not a path that can be read|NUL character|the home folder is unknown here"
    with pytest.raises(SuiteError, match=said):
        expanded({}, tmp_path, datasets=[{"name": "folder", "path": name}])
    noise = {"kind": "file", "path": name}
    with pytest.raises(SuiteError, match=said):
        expanded({}, tmp_path, datasets=[{"name": "digits", "noise": noise}])
    with pytest.raises(SuiteError, match=said):
        expanded({"model": "torchvision/resnet18", "weights": name}, tmp_path)
    with pytest.raises(SuiteError, match=r"unknown suite|cannot be read"):
        read_suite(name)


TOKENS = [
    "!!str ", "!!int ", "!!binary ", "!!timestamp ", "!!python/object:os.system ", "!<x> ", "!e!a ",
    "!!set ", "!!omap ", "!!float ", "!!bool ", "&a ", "*a", "<<: ", "? ", ": ", "- ", "| ", "> ",
    "{", "}", "[", "]", "~", "null", "true", "~/x", "~nobody/x", "\\", "'", '"', "#", "%YAML 1.1\n",
    "---\n", "\t", "\0", "1e999", ".nan", "0x1G", "9" * 30, "1:30:00", "2020-13-45", "[a]: x",
    "\n", "  ", "a" * 300, "<<", "=", "@", "!!map {", "!!seq [", "&a [*a]", "!",
]  # fmt: skip


def mutated(text, rng):
    """Insert, replace or remove something at a few random places."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice([0, 0, 1, 5, 12]))
        text = text[:start] + rng.choice([*TOKENS, "", chr(rng.randrange(300))]) + text[end:]
    return text


def try_one(number, tmp_path):
    """Read and expand one mutated suite or setting. Raises what is no message for a user."""
    rng = random.Random(number)
    try:
        if number % 3:
            path = tmp_path / "t.yaml"
            path.write_text(mutated(SUITE, rng), encoding="utf-8")
            suite, problems = read_suite(path)
            places = Places(tmp_path / "no-data", tmp_path / "cache")
            expand(suite, problems, places=places)
        else:
            setting = rng.choice(["epochs=2", "schedule.gamma=0.1", "weights=~/x", "model=cnn3"])
            expanded(parse_set([mutated(setting, rng)]), tmp_path)
    except UserError:
        pass


@pytest.mark.parametrize("first", [0, pytest.param(1000, marks=pytest.mark.nightly)])
def test_no_mutated_suite_or_setting_ends_in_a_traceback(tmp_path, first):
    count = 3000 if first else 60
    for number in range(first, first + count):
        try:
            try_one(number, tmp_path)
        except Exception as error:
            error.add_note(f"number {number}")
            raise
