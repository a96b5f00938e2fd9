"""A table as LaTeX, for the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from nlbench.errors import on_one_line
from nlbench.results.numbers_in_cells import number_and_marks

# Characters that LaTeX reads as commands, or that its standard fonts lack. They are replaced in one
# pass, because what replaces them contains some of them.
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "|": r"\textbar{}",
        # \textquotedbl is in no font that a document has without fontenc.
        '"': r"{\ttfamily\char34}",
        "<": "$<$",
        ">": "$>$",
        "‡": r"$\ddagger$",
        "†": r"$\dagger$",
        "±": r"$\pm$",
        "°": r"$^\circ$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "·": r"$\cdot$",
        "\N{MINUS SIGN}": "$-$",
    }
)
# The sign of a number, as opposed to a hyphen.
_MINUS = re.compile(r"(?<![\w.)])-(?=\d)")

# Two hyphens would become a dash.
_HYPHENS = re.compile("-(?=-)")

# What nlbench's own notes print as code, for example a command.
_CODE = re.compile("`([^`]+)`")

# After the end of a line, LaTeX reads these as arguments of that end.
_ARGUMENTS = ("[", "*")

# The usual fonts of pdflatex have some of these, and those of T1 all.
_ACCENTED = re.compile("[\u00ab\u00bb\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f]")

# pdflatex stops at signs that its fonts lack, most beyond the letters of Europe. It prints their
# numbers instead; lualatex and xelatex, which know \Umathchar, take the signs from a font.
_LACKING = re.compile("[\u0180-\U0010ffff]")


def latex(
    title: str,
    headings: list[str],
    lines: Sequence[list[str]],
    notes: Sequence[str],
    *,
    label: str = "",
    text: str = "",
    bold: Collection[tuple[int, int]] = (),
    groups: Sequence[tuple[str, int]] = (),
) -> str:
    """Return a table for the package booktabs, captioned with the title, and notes as comments.

    Args:
        label: the name by which \\ref finds the table, without its prefix "tab:".
        text: further sentences of the caption, which the list of tables does not have.
        bold: the cells whose number is bold, as (line, column).
        groups: headings above the headings, each with its number of columns; together they have
            as many columns as `headings`. "" leaves a place empty.
    """
    written = [
        _preamble([title, text, *headings, *(cell for line in lines for cell in line)]),
        r"\begin{table}",
        r"  \centering",
        _caption(title, text),
        rf"  \label{{tab:{_label(label or title)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"    \toprule",
        *_group_lines(groups),
        _line(map(_name, headings)),
        r"    \midrule",
    ]
    for number, line in enumerate(lines):
        written.append(_line(_cells(line, {column for at, column in bold if at == number})))
    written += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]

    # A note can be copied into a caption, so what LaTeX would not print there is escaped.
    written += [f"% {latex_text(note)}" for note in notes]
    return "\n".join([*written, ""])


def _caption(title: str, text: str) -> str:
    if not text:
        return rf"  \caption{{{_name(title)}}}"
    sentences = _CODE.sub(r"\\texttt{\1}", _name(text))
    return rf"  \caption[{{{_name(title)}}}]{{{_name(title)} {sentences}}}"


def _preamble(texts: Iterable[str]) -> str:
    """Return a comment that says which packages the table needs."""
    if any(map(_ACCENTED.search, texts)):
        return r"% The preamble needs \usepackage{booktabs} and \usepackage[T1]{fontenc}."
    return r"% The preamble needs \usepackage{booktabs}."


def latex_text(text: str) -> str:
    """Return a text so that LaTeX prints it as it is."""
    return on_one_line(text).translate(_LATEX)


def _name(text: str) -> str:
    return _printable(_HYPHENS.sub("-{}", latex_text(text)))


def _printable(escaped: str) -> str:
    return _LACKING.sub(_sign_or_number, escaped)


def _sign_or_number(match: re.Match[str]) -> str:
    sign = match[0]
    return rf"{{\ifdefined\Umathchar {sign}\else[U+{ord(sign):04X}]\fi}}"


def _cells(line: Sequence[str], bold: Collection[int]) -> list[str]:
    cells = [_name(line[0])]
    for column, cell in enumerate(line[1:], 1):
        # A heading may be a name with a hyphen, so only the signs of numbers become minus signs.
        signed = _MINUS.sub("\N{MINUS SIGN}", cell)
        if column in bold:
            number, marks = number_and_marks(cell)
            number = _MINUS.sub("\N{MINUS SIGN}", number)
            cells.append(rf"\textbf{{{latex_text(number)}}}{latex_text(marks)}")
        else:
            cells.append(_printable(latex_text(signed)))
    return cells


def _line(cells: Iterable[str]) -> str:
    # LaTeX looks for the argument behind spaces too.
    text = " & ".join(cells).lstrip()
    if text.startswith(_ARGUMENTS):
        text = f"{{{text[0]}}}{text[1:]}"
    return rf"    {text} \\"


def _group_lines(groups: Sequence[tuple[str, int]]) -> list[str]:
    """Return the line of the headings of several columns, and the rules below them."""
    if not groups:
        return []
    cells, rules = [], []
    first = 1
    for name, columns in groups:
        cells.append(rf"\multicolumn{{{columns}}}{{c}}{{{_name(name)}}}" if name else "")
        last = first + columns - 1
        if name:
            rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
        first = last + 1
    return [_line(cells), "    " + " ".join(rules)]


def _label(text: str) -> str:
    """Return a text as a name that LaTeX's \\label accepts."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower()
