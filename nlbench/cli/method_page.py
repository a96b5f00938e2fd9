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

from nlbench import registry

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

    title, _, text = (inspect.getdoc(inspect.getmodule(cls)) or "").partition("\n")
    lines = [*textwrap.wrap(f"{file.name}: {title}", width), ""]
    lines += [f"networks: {_networks(cls, takes)}"]
    lines += [f"is told:  {_told(cls, takes)}", f"file:     {file.path}", ""]

    if not takes:
        lines.append("hyperparameters: none")
    else:
        lines.append("hyperparameters (name: type = default, and where the default comes from):")
    for name, one in takes.items():
        default = "no default, so a suite must set it" if one.required else f"= {_default(one)}"
        lines.append(f"  {name}: {_type(one.annotation)} {default}")
        source = sources.get(name, "")
        lines += textwrap.wrap(source, width, initial_indent="      ", subsequent_indent="      ")

    lines += ["", "in a suite:", "  methods:", f"    {file.name}: {{{_example(takes)}}}"]
    return "\n".join([*lines, *_reflowed(text, width), ""])


def _reflowed(text: str, width: int) -> list[str]:
    """Return the lines of a docstring at another width. Formulas, which are indented, stay."""
    found: list[str] = []
    joined = ""
    for line in [*text.rstrip().splitlines(), ""]:
        begins = re.match(r"- |\d+\. |\s|$", line)
        inside = line.startswith("  ") and joined.startswith(("- ", "1", "2", "3", "4", "5"))
        if joined and (not begins or inside):
            joined += " " + line.strip()
            continue
        if joined:
            indent = "  " if joined.startswith("- ") else "   " * joined[0].isdigit()
            found += textwrap.wrap(joined, width, subsequent_indent=indent)
        joined = line if not re.match(r"\s|$", line) else ""
        if not joined:
            found.append(line)
    return found[:-1] if found and not found[-1] else found


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
