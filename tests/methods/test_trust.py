"""How far each method is trusted, and what it takes: the files in methods/ against the code."""

import ast
import inspect
import tomllib
from pathlib import Path

import kept
import pytest
from cases import CLASSES
from lab import make_task
from official import needs_vectors, official_values

from nlbench import registry, trust
from nlbench.cli import method_page

TESTS = Path(__file__).parents[1]
TRUSTS = trust.trusts()


def functions(path):
    """Return the source of each function of a test file, by name."""
    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
    return found


def names(path, name):
    """Return whether a test file loads a method, or imports its file."""
    text = path.read_text(encoding="utf-8")
    stem = name.replace("-", "_")
    return any(form in text for form in (f'"{name}"', f"`{name}`", f"nlbench.methods.{stem} "))


def problems(name, known):
    """Return what is wrong with an entry of methods/trust.toml."""
    if known.level not in trust.LEVELS:
        return [f"{known.level!r} is no level"]
    if known.level == "implemented":
        return []
    found = []
    if not known.compared or not known.tests:
        found.append("it does not say what was compared, or by which test")
    if (known.level == "published") != bool(known.record):
        found.append("the level `published` has a record, and no other has")
    if known.record and not (TESTS.parent / known.record).exists():
        found.append(f"there is no {known.record}")

    reads_values = False
    for test in known.tests:
        file, _, function = test.partition("::")
        path = TESTS / file
        if not path.is_file() or function not in functions(path):
            found.append(f"there is no {test}")
            continue
        # A test of a part of `ops` is for all methods that use it.
        if file.startswith("methods/") and not names(path, name):
            found.append(f"{file} does not name {name}")
        reads_values |= official_values.__name__ in functions(path)[function]
    if known.level == "authors" and not reads_values:
        found.append("none of its tests reads values of the authors' code")
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_the_word_for_each_method_is_shown_by_tests(name):
    assert problems(name, TRUSTS[name]) == []


def test_each_method_has_one_word():
    # A second entry with a name is an error of TOML.
    assert list(TRUSTS) == list(CLASSES)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (trust.Trust("sure"), "no level"),
        (trust.Trust("plain"), "does not say what was compared"),
        (trust.Trust("plain", "x", ("methods/test_elr.py::test_x",)), "there is no methods/"),
        (trust.Trust("plain", "x", ("methods/test_x.py::test_x",)), "there is no methods/"),
        (trust.Trust("plain", "x", ("methods/test_js.py::test_value_and_gradient",)), "not name"),
        (trust.Trust("authors", "x", ("methods/test_elr.py::test_ten_steps_of_elr",)), "none of"),
        (trust.Trust("published", "x", TRUSTS["elr"].tests), "has a record"),
        (trust.Trust("published", "x", TRUSTS["elr"].tests, "records/no"), "no records/no"),
    ],
)
def test_a_word_without_its_test_is_found(known, message):
    assert any(message in problem for problem in problems("elr", known))


@needs_vectors
def test_values_of_the_authors_are_there_for_each_method_of_that_level():
    for name in [name for name, known in TRUSTS.items() if known.level == "authors"]:
        key = {"elr": "elr_beta", "elr-plus": "elrplus_beta", "nce-rce": "nce"}.get(name, name)
        assert official_values(f"C10/early/{key}")


# ---- What a method takes -------------------------------------------------------------------------


def test_networks_and_told_are_those_that_methods_declare():
    costs = trust.costs()
    assert list(costs) == list(CLASSES)
    for name, cls in CLASSES.items():
        method = cls(make_task())
        assert costs[name].networks == method.num_networks, name
        assert costs[name].told == tuple(method.told), name


@pytest.mark.parametrize("name", ["ce", "elr", "ema", "forward"])
def test_costs_are_counted(name):
    """A short training tells these, as nothing in them changes with the epochs."""
    assert kept.measured(name, epochs=2) == trust.costs()[name]


@pytest.mark.methods
@pytest.mark.parametrize("name", CLASSES)
def test_the_costs_of_every_method(name):
    """Which examples a method selects may differ a little on another machine."""
    found, known = kept.measured(name), trust.costs()[name]
    assert found.passes == pytest.approx(known.passes, rel=0.05)
    assert found.helper_passes == pytest.approx(known.helper_passes, rel=0.05)
    assert (found.copies, found.bytes_per_example) == (known.copies, known.bytes_per_example)


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        (trust.Costs(1, (), 1.0, 0.0, 0, 0), ["1 network", "1 pass"]),
        (
            trust.Costs(2, ("T", "x"), 4.0, 1.1, 2, 80),
            [
                "told T, x",
                "2 networks",
                "4 passes and 1.1 of helper networks",
                "keeps 2 further networks and 80 bytes per example",
            ],
        ),
        (
            trust.Costs(1, (), 1.3, 0.0, 1, 1),
            ["1 network", "1.3 passes", "keeps 1 further network and 1 byte per example"],
        ),
    ],
)
def test_costs_in_words(costs, words):
    assert costs.in_words() == words


# ---- What `nlbench show method` reads out of a method's file -------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_each_method_says_where_its_equations_and_defaults_are_from(name):
    cls = CLASSES[name]
    assert method_page.sources_of_equations(inspect.getdoc(inspect.getmodule(cls)))
    sources = method_page.sources_of_defaults(cls)
    common = method_page.source_of_all(sources)
    for argument in registry.hyperparameters(cls):
        assert sources[argument] or common, argument


def test_the_sentences_about_the_source():
    doc = """A loss. A & B, arXiv:1234.5678, https://github.com/a/b-c.

It is 1/C of x/y, see methods/gce.py. The clamp is
that of someone/some-code. More on it.

- Constants are those of the code. No code of D is known.
"""
    assert method_page.sources_of_equations(doc) == [
        "Code: https://github.com/a/b-c",
        "The clamp is that of someone/some-code.",
        "Constants are those of the code.",
        "No code of D is known.",
    ]


def test_the_sources_are_printed_as_sentences():
    page = " ".join(method_page.page(registry.method_files()["promix"], 80).split())
    assert "source: Code: https://github.com/Justherozen/ProMix. Constants are" in page


def test_the_file_is_plain():
    """One entry of known keys for each method: another reader needs nothing of nlbench."""
    entries = tomllib.loads(registry.beside_methods(trust.TRUST).read_text(encoding="utf-8"))
    for name, entry in entries.items():
        assert set(entry) <= {"level", "compared", "tests", "record"}, name
