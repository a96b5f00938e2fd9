"""Titles, cells and notes as Markdown and LaTeX."""

import pytest

from nlbench.results import formats

HEADINGS = ["method", "last"]
LINES = [["a_b", "1.00±0.50‡"], ["50% & #1", "2.00† (p <0.001)"]]


def test_markdown_pads_every_column_to_its_widest_cell():
    assert formats.markdown("title", HEADINGS, LINES, ["first", "second"]).splitlines() == [
        "**title**",
        "",
        "| method   |             last |",
        "| -------- | ---------------: |",
        "| a_b      |       1.00±0.50‡ |",
        "| 50% & #1 | 2.00† (p <0.001) |",
        "",
        "- first",
        "- second",
    ]


def test_latex_escapes_what_it_would_not_print():
    assert formats.latex("title", HEADINGS, LINES, ["40% ± 1"]).splitlines() == [
        "% title",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"method & last \\",
        r"\midrule",
        r"a\_b & 1.00$\pm$0.50$\ddagger$ \\",
        r"50\% \& \#1 & 2.00$\dagger$ (p $<$0.001) \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"% 40\% $\pm$ 1",
    ]


@pytest.mark.parametrize(
    ("p", "text"), [(0.5, "0.500"), (0.001, "0.001"), (0.00099, "<0.001"), (0.0, "<0.001")]
)
def test_a_small_p_value_is_a_bound(p, text):
    assert formats.p_value(p) == text
