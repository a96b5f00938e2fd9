"""The application, the options that several commands share, and what happens to errors.

A command parses, calls and prints. Tables go to standard output, everything else to standard error.
"""

from __future__ import annotations

import functools
import gc
import io
import os
import shutil
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, TextIO

import typer
from typer.core import TyperGroup

from nlbench.cli import interrupt
from nlbench.errors import NlbenchWarning, Terminated, UserError, printable
from nlbench.results.formats import WIDTH

P = ParamSpec("P")

# The commands as a beginner needs them. Others follow.
ORDER = (
    "run",
    "table",
    "list",
    "show",
    "report",
    "plot",
    "publish",
    "data",
    "embed",
    "new-method",
    "check",
    "noise",
    "published",
    "compare",
    "agreement",
    "suspects",
    "relabel",
    "verify",
    "repair",
    "reproduce",
    "merge",
    "forget",
    "doctor",
    "bench",
)


class Commands(TyperGroup):
    """A group of commands, listed in ORDER and with whole sentences."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands in the order of the help text."""
        names = super().list_commands(ctx)
        first = [name for name in ORDER if name in names]
        return [*first, *(name for name in names if name not in first)]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line about each command, wrapped where it is longer than the terminal is wide."""
        lines = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                lines.append((name, command.get_short_help_str(limit=10_000)))
        if lines:
            with formatter.section("Commands"):
                formatter.write_dl(lines)


def examples(*commands: str) -> str:
    """Return the end of a help text, which shows these command lines."""
    # A paragraph that begins with \\b is printed line by line.
    return "\n".join(["\b", "Examples:", *(f"  {command}" for command in commands)])


def listed(names: Iterable[str]) -> str:
    """Return the end of an option's help, which lists names and breaks none of them."""
    text = ", ".join(names) + "."
    lines = textwrap.wrap(text, 46, break_on_hyphens=False, break_long_words=False)
    # The default value follows on the last line.
    lines[-1:] = textwrap.wrap(lines[-1], 34, break_on_hyphens=False, break_long_words=False)
    return "\n\n\b\n" + "\n".join(lines)


app = typer.Typer(
    cls=Commands,
    help="Benchmark methods for learning with noisy labels under one identical protocol.",
    epilog=examples(
        "nlbench run quick               # train ten methods on digits, print a table",
        "nlbench table results --details # print the table again, with all columns",
        "nlbench run --help              # options and examples of one command",
        "nlbench --install-completion    # complete names with the tab key",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# ---- Options of several commands -----------------------------------------------------------------


Out = Annotated[Path, typer.Option("--out", help="The folder that holds the records.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="The folder with the datasets. The default is $NLBENCH_DATA, or else a folder "
        "of the user.",
    ),
]
MethodsDir = Annotated[
    Path | None,
    typer.Option(
        "--methods-dir", help="A folder with more method files. $NLBENCH_METHODS names others."
    ),
]


def width() -> int:
    """Return the number of columns of the terminal that reads standard output.

    Output that goes elsewhere is as wide as a usual terminal.
    """
    if not sys.stdout.isatty():
        return WIDTH
    return shutil.get_terminal_size((WIDTH, 24)).columns


class PlainFormat(StrEnum):
    md = "md"
    csv = "csv"


# ---- Names that the tab key completes ------------------------------------------------------------


def complete_suites(incomplete: str) -> list[str]:
    """Return the suites that come with nlbench, and the YAML files and folders here."""
    from nlbench import registry

    names = [name for name in registry.suite_files() if name.startswith(incomplete)]
    for path in sorted(Path().glob(f"{incomplete}*")):
        if path.suffix in (".yaml", ".yml"):
            names.append(str(path))
        elif path.is_dir():
            names.append(f"{path}/")
    return names


def complete_methods(incomplete: str) -> list[str]:
    """Return the names of methods."""
    from nlbench import registry

    return [name for name in registry.method_files() if name.startswith(incomplete)]


def complete_datasets(incomplete: str) -> list[str]:
    """Return the names of datasets."""
    from nlbench.data import catalogue

    return [name for name in catalogue.dataset_files() if name.startswith(incomplete)]


# ---- Messages and errors -------------------------------------------------------------------------


def warn(*lines: str) -> None:
    """Print each of `lines` to standard error, wrapped at words in a terminal."""
    for line in lines:
        print(_folded(printable(line), sys.stderr), file=sys.stderr, flush=True)


def say(*lines: str) -> None:
    """Print each of `lines` to standard output, wrapped at words in a terminal."""
    for text in lines:
        for line in printable(text).split("\n"):
            print(_folded(line, sys.stdout), flush=True)


def write(text: str) -> None:
    """Print a text whose lines have their final width, such as a table, to standard output."""
    print(printable(text), end="")


def _folded(line: str, stream: TextIO) -> str:
    """Return a line as a terminal shows it best. A file, and a table's line, gets it as it is."""
    if not stream.isatty() or line.startswith("|"):
        return line
    columns = shutil.get_terminal_size((WIDTH, 24)).columns
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    wrapped = textwrap.wrap(
        line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(wrapped)


def _print_warnings_as_lines() -> None:
    """Have a NlbenchWarning printed as its text, without the line of code that it comes from."""
    show = warnings.showwarning

    def show_line(
        message: Warning | str, category: type[Warning], *place: Any, **more: Any
    ) -> None:
        if issubclass(category, NlbenchWarning):
            warn(str(message))
        else:
            show(message, category, *place, **more)

    warnings.showwarning = show_line


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Decorate a command so that whatever a user can cause ends in a message and an exit status."""

    # typer reads a command's options from its signature.
    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            interrupt.begin_work()
            try:
                command(*args, **kwargs)
            finally:
                # Flush here: a reader that closed the pipe is then seen as BrokenPipeError below.
                sys.stdout.flush()
        except UserError as error:
            first, *rest = str(error).splitlines() or [""]
            warn(f"error: {first}", *(f"  {line}" for line in rest))
            raise typer.Exit(2) from None
        except KeyboardInterrupt as error:
            number = error.signal if isinstance(error, Terminated) else signal.SIGINT
            warn(interrupt.line_for(number))
            interrupt.leave(number)
            raise typer.Exit(interrupt.status_of(number)) from None
        except BrokenPipeError:
            # Whatever is still buffered must not raise again when Python exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            # A shell reports a process that SIGPIPE ended with the same number.
            raise typer.Exit(141) from None
        # For example a full disk, or a folder without permission.
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            warn(f"error: {where}{error.strerror or error}")
            raise typer.Exit(2) from None
        finally:
            # What is raised after this, typer would report with a status of its own.
            interrupt.end()

    return wrapped


# ---- The command itself --------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"nlbench {installed('nlbench')}")
        raise typer.Exit()


def main() -> NoReturn:
    """Run the command `nlbench`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal whose encoding lacks "±" shows "?" instead of a traceback.
            stream.reconfigure(errors="replace")

    _print_warnings_as_lines()
    try:
        app()
    finally:
        interrupt.end()
        # At the end Python looks several times for objects that nothing needs any more. With torch
        # there are nearly 200,000, and the system takes the memory back anyway.
        gc.freeze()
    raise SystemExit(0)
