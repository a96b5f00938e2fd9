"""What `nlbench show method NAME` prints: the paper, the hyperparameters, and what is declared."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from nlbench import registry, trust

if TYPE_CHECKING:
    from nlbench.method import Method

# A dataset that is always there, on which methods are built to see what they declare.
_DATASET = "digits"


def page(file: registry.MethodFile, width: int) -> str:
    """Return the description of a method.

    Args:
        width: wraps long lines of text.
    Raises: SuiteError for a file that cannot be imported or holds no method.
    """
    cls = registry.load_method(file)
    takes = registry.hyperparameters(cls)
    sources = sources_of_defaults(cls)

    doc = inspect.getdoc(inspect.getmodule(cls)) or ""
    title, _, text = doc.partition("\n")
    facts = {
        "trusted": _trusted(file),
        "source": " ".join(_sentence(text) for text in sources_of_equations(doc)),
        "networks": _networks(cls, takes),
        "is told": _told(cls, takes),
        **_costs(file),
    }
    lines = [*textwrap.wrap(f"{file.name}: {title}", width), ""]
    for name, fact in facts.items():
        if fact:
            first = f"{name}:".ljust(10)
            lines += textwrap.wrap(
                fact,
                width,
                initial_indent=first,
                subsequent_indent=" " * 10,
                break_on_hyphens=False,
                break_long_words=False,
            )
    # A path is not wrapped, so that it can be copied.
    lines += [f"file:     {file.path}", ""]

    if not takes:
        lines.append("hyperparameters: none")
    else:
        lines.append("hyperparameters (name: type = default, and where the default comes from):")
    common = source_of_all(sources)
    lines += textwrap.wrap(common, width, initial_indent="  ", subsequent_indent="  ")
    for name, one in takes.items():
        default = "no default, so a suite must set it" if one.required else f"= {_default(one)}"
        lines += textwrap.wrap(
            f"{name}: {_type(one.annotation)} {default}",
            width,
            initial_indent="  ",
            subsequent_indent=" " * 8,
            break_on_hyphens=False,
            break_long_words=False,
        )
        source = sources.get(name, "").replace(common, "").strip()
        lines += textwrap.wrap(source, width, initial_indent="      ", subsequent_indent="      ")

    lines += ["", "in a suite:", "  methods:", f"    {file.name}: {{{_example(takes)}}}"]
    if text.strip():
        lines += ["", "what it computes, and what differs from its source:"]
    return "\n".join([*lines, *_reflowed(text, width), ""])


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


# A point of a list, and the text of one that goes on below a formula.
_POINT = re.compile(r"- |\d+\. ")
_BELOW = re.compile(r" {2,3}(?=\S)")


def _reflowed(text: str, width: int) -> list[str]:
    """Return the lines of a docstring at another width. Formulas, which are indented, stay."""
    found: list[str] = []
    joined = ""
    for line in [*text.rstrip().splitlines(), ""]:
        if joined and _goes_on(joined, line):
            joined += " " + line.strip()
            continue

        if joined:
            found += textwrap.wrap(joined, width, subsequent_indent=_indent(joined))
        joined = line if re.match(r"\S", line) or _BELOW.match(line) else ""
        if not joined:
            found.append(line)
    return found[:-1] if found and not found[-1] else found


def _indent(joined: str) -> str:
    """Return what the second line of a point or a paragraph begins with."""
    if below := _BELOW.match(joined):
        return below[0]
    point = _POINT.match(joined)
    return " " * len(point[0]) if point else ""


def _goes_on(joined: str, line: str) -> bool:
    """Say whether a line belongs to the point or the paragraph `joined`."""
    if not line.strip() or _POINT.match(line):
        return False
    inside = _POINT.match(joined) or _BELOW.match(joined)
    return line.startswith("  ") if inside else not line[0].isspace()


_FOR_ALL = re.compile(r"\bAll (other )?(defaults|values) are (from|the authors') ?[^.]*\.")


# ---- Hyperparameters -----------------------------------------------------------------------------


def _default(one: registry.Hyperparameter) -> str:
    # A share such as 10 / 300 has more digits than anybody reads.
    if isinstance(one.default, float):
        return f"{one.default:.4g}" if one.default != int(one.default) else str(one.default)
    return repr(one.default)


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if not isinstance(value, float) else f"{value:.4g}"


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _example(takes: Mapping[str, registry.Hyperparameter]) -> str:
    for name, one in takes.items():
        value = "..." if one.required else _yaml(one.default)
        return f"{name}: {value}"
    return ""


def sources_of_defaults(cls: type[Method]) -> dict[str, str]:
    """Return the comments at the arguments of a method's constructor, by argument.

    A comment stands above the argument or behind it, in the class that defines the constructor.
    """
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    path = Path(inspect.getfile(owner))
    text = path.read_text(encoding="utf-8")
    arguments = _arguments(ast.parse(text), owner.__name__)
    comments = _comments(text)

    found = {}
    for argument, end in arguments:
        above: list[str] = []
        line = argument.lineno - 1
        while comments.get(line, ("", False))[1]:
            above.insert(0, comments[line][0])
            line -= 1
        behind = [comments[line][0] for line in range(argument.lineno, end + 1) if line in comments]
        found[argument.arg] = " ".join([*above, *behind])

    return found


def source_of_all(sources: Mapping[str, str]) -> str:
    """Return the sentence that says where all defaults of a method come from; empty for none."""
    for text in sources.values():
        if match := _FOR_ALL.search(text):
            return match[0]
    return ""


def _arguments(tree: ast.Module, name: str) -> Iterator[tuple[ast.arg, int]]:
    """Yield each argument of a class's constructor with the last line of its default."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or node.name != name:
            continue
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                yield from _with_defaults(inner.args)


def _with_defaults(given: ast.arguments) -> Iterator[tuple[ast.arg, int]]:
    positional = [*given.posonlyargs, *given.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    pairs = [
        *zip(positional, [*missing, *given.defaults], strict=True),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        last = default or argument
        yield argument, last.end_lineno or last.lineno


def _comments(text: str) -> dict[int, tuple[str, bool]]:
    """Return each line's comment, and whether it has the line to itself."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            found[token.start[0]] = (token.string.lstrip("# ").strip(), alone)
    return found


# ---- What is known of it -------------------------------------------------------------------------


def _trusted(file: registry.MethodFile) -> str:
    """Return how far a shipped method is trusted, and which tests show it."""
    known = trust.trusts().get(file.name) if _is_shipped(file) else None
    if known is None:
        return ""
    text = f"{known.words}: {known.compared}" if known.compared else known.words
    if known.record:
        text += f" (record: {known.record})"
    files = sorted({test.partition("::")[0] for test in known.tests})
    return f"{text} ({', '.join(f'tests/{name}' for name in files)})" if files else text


def _is_shipped(file: registry.MethodFile) -> bool:
    # A file of the user's may have the name of a shipped method, if it is shown by its path.
    return file.module.startswith("nlbench.methods.")


def _costs(file: registry.MethodFile) -> dict[str, str]:
    """Return what a shipped method takes beside its networks."""
    known = trust.costs().get(file.name) if _is_shipped(file) else None
    if known is None:
        return {}
    kept = known.kept_in_words() or "nothing beyond the networks that it trains"
    if known.bytes_per_example:
        kept += ", with 10 classes"
    return {
        "cost": f"{known.passes_in_words()}, for each training example and epoch",
        "keeps": kept,
    }


# A repository as OWNER/NAME or as an address, but no file of nlbench, no arXiv number, and no 1/C.
_REPOSITORY = re.compile(
    r"https://\S+[^\s.,]|(?<![\w:/.])(?!methods/|arXiv)[A-Za-z][\w-]{3,}/[A-Z_a-z][\w.-]{2,}"
)
_NO_CODE = re.compile(r"\b[Nn]o code\b")
_SAME = re.compile(r"^(Equation|Formula|Constant)s?\b.* code\b")


def sources_of_equations(doc: str) -> list[str]:
    """Return the sentences of a method's docstring that say whose equations and constants it has.

    They name a repository, say that there is no code, or begin with what is that of some code.
    """
    title, _, text = doc.partition("\n")
    found = [f"Code: {address}" for address in re.findall(r"https://[^\s,]+[^\s.,]", title)]
    for paragraph in re.split(r"\n\s*\n|\n(?=- )", text):
        for sentence in re.split(r"(?<=\.)\s+(?=[A-Z(])", " ".join(paragraph.lstrip("- ").split())):
            if any(wanted.search(sentence) for wanted in (_REPOSITORY, _NO_CODE, _SAME)):
                found.append(sentence)
    return found


# ---- What the method declares --------------------------------------------------------------------


def _networks(cls: type[Method], takes: Mapping[str, registry.Hyperparameter]) -> str:
    declared = {label: method.num_networks for label, method in _variants(cls, takes)}
    usual = declared.pop("", cls.num_networks)
    others = [f"{n} with {label}" for label, n in declared.items() if n != usual]
    return "; ".join([str(usual), *others])


def _told(cls: type[Method], takes: Mapping[str, registry.Hyperparameter]) -> str:
    declared = {label: method.told for label, method in _variants(cls, takes)}
    usual = declared.pop("", cls.told)
    others = [
        f"{', '.join(told) or 'nothing'} with {label}"
        for label, told in declared.items()
        if told != usual
    ]
    return "; ".join([", ".join(usual) or "nothing beyond the given labels", *others])


def _variants(
    cls: type[Method], takes: Mapping[str, registry.Hyperparameter]
) -> Iterator[tuple[str, Method]]:
    """Yield the method with its defaults, under an empty label, and with each other choice."""
    from nlbench.build import build_method, dummy_task
    from nlbench.data import catalogue

    defaults = {name: one.default for name, one in takes.items() if not one.required}
    if len(defaults) < len(takes):
        return
    choices: list[tuple[str, dict[str, object]]] = [("", defaults)]
    for name, one in takes.items():
        values: tuple[object, ...] = get_args(one.annotation)
        if one.annotation is bool:
            values = (True, False)
        elif get_origin(one.annotation) is not Literal:
            values = ()
        for value in values:
            if value != one.default:
                choices.append((f"{name}: {_yaml(value)}", {**defaults, name: value}))

    info = catalogue.dataset(_DATASET).INFO
    for label, params in choices:
        # A choice that needs another one beside it has no line here, and neither has a method whose
        # constructor fails; `nlbench check` says why.
        try:
            method = build_method(cls, params, dummy_task(info))
        except Exception:
            continue
        yield label, method
