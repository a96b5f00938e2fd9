"""LaTeX compiles the tables, whatever names are in them."""

import re
import shutil
import subprocess

import pytest
from made_tables import DIVERGED, suite

from nlbench import registry
from nlbench.results import formats
from nlbench.results import table as tables
from nlbench.results.store import Store

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        shutil.which("pdflatex") is None,
        reason="needs pdflatex: Debian's texlive-latex-base and texlive-latex-recommended",
    ),
]

HOSTILE = [
    "<script>alert(1)</script>",
    "a|b",
    "$x$",
    "_x_",
    "R&D; 50% #1 ~ ^ \\ {z} }{",
    "\\input{x}",
    "\\end{tabular}",
    "%",
    "[no length]",
    "*",
    "\"quoted\" 'x' `y`",
    "a--b---c !`?`<<>>,,",
    "a\x1b[2Jb\u202ec\x00",
    "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED}",
    "\u4e2d\u6587 \U0001f600 a\u0301",
    "°±‡†\N{MULTIPLICATION SIGN}·\N{MINUS SIGN}§",
    "x" * 300,
]


def compile_(folder, text):
    """Compile a document of these tables twice, as a list of tables needs, and return its log.

    The document has the packages that the tables name, and no others.
    """
    packages = re.findall(r"\\usepackage(?:\[\w+\])?\{\w+\}", text)
    document = [
        r"\documentclass{article}",
        *dict.fromkeys(packages),
        r"\begin{document}",
        r"\listoftables",
        text,
        r"\end{document}",
    ]
    (folder / "t.tex").write_text("\n".join(document), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t"]
    for _ in range(2):
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
        log = (folder / "t.log").read_text(encoding="utf-8", errors="replace")
        assert done.returncode == 0, re.findall(r"^!.*(?:\n.*){5}", log, re.MULTILINE)
    return log


def test_hostile_names_compile_in_every_place(tmp_path):
    lines = [[name, "92.00±1.73*", "-1.5±0.2 (p <0.001)"] for name in HOSTILE]
    lines.append(["n", "[3]", ""])
    text = formats.latex(
        "; ".join(HOSTILE),
        ["method", HOSTILE[4], HOSTILE[13]],
        lines,
        HOSTILE,
        label="a",
        text=f"`nlbench run --stale` {HOSTILE[4]} {HOSTILE[14]}",
        bold={(line, 1) for line in range(len(HOSTILE))},
        groups=[("", 1), (HOSTILE[14], 2)],
    )
    log = compile_(tmp_path, text)
    assert "Missing character" not in log


def test_letters_with_accents_compile_with_the_packages_that_the_table_names(tmp_path):
    text = formats.latex("é", ["m", "ü"], [["Đ þ ą « » ß ø", "1"]], [])
    assert "Missing character" not in compile_(tmp_path, text)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"details": True},
        {"metric": "best"},
        {"published": True},
        {"purpose": "paper"},
        {"purpose": "paper", "columns": ("last", "best", "minus"), "sort": "method"},
        {"purpose": "paper", "group_by": "dataset"},
    ],
)
def test_the_tables_of_a_suite_compile(tmp_path, options):
    store = Store(tmp_path / "store")
    values = {
        "ce": [[0.6, 0.61, 0.62]] * 4,
        "elr": [[0.9, 0.91, 0.92], [0.8, DIVERGED, 0.82], [0.7, 0.71, None], [None] * 3],
        "gce": [[0.9, 0.91, 0.93]] * 4,
    }
    noises = (("Digits", 0.2), ("Digits", 0.4), ("CIFAR-10", 0.2), ("CIFAR-10", 0.4))
    plan = suite(store, values, noises, networks={"elr": 2})
    text = tables.render(plan, store, methods=registry.method_files(), fmt="latex", **options)
    compile_(tmp_path, text)
    assert (tmp_path / "t.pdf").stat().st_size > 10_000
