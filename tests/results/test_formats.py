"""Titles, cells and notes as Markdown and LaTeX."""

import pytest

from nlbench.errors import printable
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


def test_latex_is_a_table_with_caption_and_label():
    assert formats.latex(
        "quick: 40%", HEADINGS, LINES, ["40% ± 1"], label="a_b 1"
    ).splitlines() == [
        r"% The preamble needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"  \centering",
        r"  \caption{quick: 40\%}",
        r"  \label{tab:a-b-1}",
        r"  \begin{tabular}{lr}",
        r"    \toprule",
        r"    method & last \\",
        r"    \midrule",
        r"    a\_b & 1.00$\pm$0.50$\ddagger$ \\",
        r"    50\% \& \#1 & 2.00$\dagger$ (p $<$0.001) \\",
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
        r"% 40\% $\pm$ 1",
    ]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        (r"a\b", r"a\textbackslash{}b"),
        ("{a}", r"\{a\}"),
        ("$5", r"\$5"),
        ("x^2~y", r"x\textasciicircum{}2\textasciitilde{}y"),
        ("a_b%&#", r"a\_b\%\&\#"),
        ('a|b"c', r"a\textbar{}b{\ttfamily\char34}c"),
        ("p < 1 > 0", r"p $<$ 1 $>$ 0"),
        ("two\nlines", "two lines"),
        # A hyphen in a name is no minus sign.
        ("gce-0.7", "gce-0.7"),
        ("-0.4", "-0.4"),
    ],
)
def test_latex_prints_names_as_they_are(name, safe):
    assert formats.latex_text(name) == safe
    assert f"    {safe} & 1 \\\\" in formats.latex("t", HEADINGS, [[name, "1"]], [])


@pytest.mark.parametrize(("name", "safe"), [("[1em]", "{[}1em]"), (" *a*", "{*}a*")])
def test_the_beginning_of_a_row_is_no_argument_of_the_row_before(name, safe):
    assert f"    {safe} & 1 \\\\" in formats.latex("t", HEADINGS, [[name, "1"]], [])


def test_a_name_in_markdown_is_no_formula():
    assert formats.markdown_name("$x_y$") == r"\$x_y\$"


def test_latex_has_true_minus_signs_in_numbers():
    lines = [["gls-0.4", "-20.75±15.56 (p 0.006)"], ["b", "-"], ["c", "1.00 (-0.5; top-5)"]]
    text = formats.latex("t", ["method", "-0.4"], lines, [])

    assert r"gls-0.4 & $-$20.75$\pm$15.56 (p 0.006) \\" in text
    assert r"b & - \\" in text
    assert r"c & 1.00 ($-$0.5; top-5) \\" in text
    assert r"method & -0.4 \\" in text


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a|b", r"a\|b"),
        ("a*b*", r"a\*b\*"),
        ("`x`", r"\`x\`"),
        ("<b>", r"\<b>"),
        ("_x_", r"\_x\_"),
        ("back\\slash", r"back\\slash"),
        ("two\r\nlines", "two lines"),
        ("my_loss [told T] (p 0.5)", "my_loss [told T] (p 0.5)"),
        ("[x](http://a)", r"[x\](http://a)"),
        ("![x][y]", r"![x\][y]"),
        ("&lt;i&#62;", r"\&lt;i\&#62;"),
        ("R&D; x", r"R\&D; x"),
        ("~~x~~ ~1", r"\~~x\~~ ~1"),
        ("\x1b[31mred\x07\u202e", " [31mred "),
    ],
)
def test_markdown_shows_names_as_they_are(name, safe):
    assert formats.markdown_name(name) == safe
    first, *_ = formats.markdown("t", HEADINGS, [[name, "1"]], []).splitlines()[4:]
    assert first == f"| {safe.ljust(6)} |    1 |"


@pytest.mark.parametrize(
    ("note", "safe"),
    [
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)>"),
        ("classes (</li>, <!--, <?x)", r"classes (\</li>, \<!--, \<?x)"),
        (r"a\<b>", r"a\\\<b>"),
        ("[x](javascript:1)", r"[x\](javascript:1)"),
        ("&lt;b&gt;", r"\&lt;b\&gt;"),
        ("one\n\n# Title\r- two", "one # Title - two"),
        ("\x1b]8;;http://a\x07x\u2067y\u2028z", " ]8;;http://a x y z"),
        # nlbench's own notes stay as they are.
        ("`nlbench run --stale rerun` trains it; p <0.001, 3 < 4, R&D", None),
        ("told T: elr got the suite's own matrix (sha256:0123), and [1] (x)", None),
    ],
)
@pytest.mark.parametrize("width", [None, 80])
def test_a_name_in_a_note_is_no_tag_and_no_link(note, safe, width):
    text = formats.markdown("t", HEADINGS, LINES, [note], width=width)
    assert text.splitlines()[-1] == f"- {note if safe is None else safe}"


def test_control_characters_of_a_name_are_in_no_format():
    name = "a\x1b[2Jb\u202ec\r\nd"
    latex = formats.latex(name, [name, name], [[name, "1"]], [name])
    markdown = formats.markdown(name, [name, name], [[name, "1"]], [name])
    for text in (latex, markdown):
        assert text == printable(text)
        assert "\r" not in text
        assert all("d" in line for line in text.splitlines() if "[2Jb" in line)


@pytest.mark.parametrize(
    "name",
    [
        "=1+1",
        "+1",
        "-1+cmd|' /C calc'!A0",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\uff1d1+1",
        "\uff20x",
    ],
)
def test_no_name_in_a_csv_file_is_a_formula(name):
    assert formats.csv_name(name) == f"'{name}"


def test_other_names_in_a_csv_file_stay():
    for name in ("ce", "gls-0.4", "Digits symmetric 0.4", "a=1", "", "50%"):
        assert formats.csv_name(name) == name


def test_text_is_wrapped_at_words_and_lines_of_the_table_are_not():
    title, notes = "word " * 40, ["noise-rate " * 20, "* marked"]
    text = formats.markdown(title, ["m", "x" * 90], [["a", "1"]], notes, width=80)

    lines = text.splitlines()
    assert lines[0].startswith("**word")
    assert max(len(line) for line in lines if not line.startswith("|")) <= 80
    assert [len(line) for line in lines if line.startswith("|")] == [99, 99, 99]
    assert all(set(line.split()) <= {"-", "noise-rate"} for line in lines if "noise" in line)
    # A note that began with an asterisk would be shown as a list within the list.
    assert lines[-1] == r"- \* marked"


def test_columns_that_do_not_fit_go_into_further_tables():
    headings = ["method", *(f"condition {i} with a long name" for i in range(4)), "nets"]
    line = ["ce", "1.00", "2.00", "3.00", "4.00", "5"]
    text = formats.markdown("t", headings, [line], [], width=80, split=True)
    found = [part for part in text.splitlines() if part.startswith("| ce")]

    assert max(map(len, text.splitlines())) <= 80
    assert [part.split()[1::2] for part in found] == [
        ["ce", "1.00", "2.00"],
        ["ce", "3.00", "4.00", "5"],
    ]
    wide = formats.markdown("t", headings, [line], [], width=200, split=True)
    assert wide.count("| ce") == 1


@pytest.mark.parametrize(
    ("p", "text"), [(0.5, "0.500"), (0.001, "0.001"), (0.00099, "<0.001"), (0.0, "<0.001")]
)
def test_a_small_p_value_is_a_bound(p, text):
    assert formats.p_value(p) == text
