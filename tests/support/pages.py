"""Follow pages of the documentation as their readers do.

Files are written, commands are run, and their outputs are compared with those on the page.
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nlbench

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>\w+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
# The first line of a block that is a file: a comment that holds its path.
NAME = re.compile(r"(?:#|//) (\S+\.\w+)\n")

Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Block:
    """Hold a block of code. `mark` is the word of an HTML comment above it, or empty."""

    kind: str
    mark: str
    text: str

    @property
    def path(self) -> str:
        """Return the path that the block's first line names, or an empty string."""
        found = NAME.match(self.text)
        return found[1] if found else ""


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page. Raises AssertionError if one of them is not recognised."""
    text = page.read_text(encoding="utf-8")
    assert "```" not in BLOCK.sub("", text), f"{page} has a block that is not read"

    found = []
    for match in BLOCK.finditer(text):
        found.append(Block(match["kind"], match["mark"] or "", match["text"]))
    return found


def shell(place: Path, **environment: str) -> Shell:
    """Return a function that runs a script in `place`, without methods or data of this machine."""
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NLBENCH_CACHE": str(place / "cache"),
        "NLBENCH_DATA": str(place / "no-data"),
        "NLBENCH_METHODS": "",
        **environment,
    }

    def call(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-eu", "-c", script],
            cwd=place, env=os.environ | own, capture_output=True, text=True, timeout=500,
        )  # fmt: skip

    return call


def copy_of_nlbench(place: Path) -> Shell:
    """Copy the installed package to `place`, and return a shell that uses the copy.

    A page may change the copy. `methods` and `suites` lie beside the package, as in a checkout.
    """
    source = Path(nlbench.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "methods", "suites")
    shutil.copytree(source, place / "nlbench", ignore=ignored)

    # An installed package contains the two folders; in a checkout they are its neighbours.
    for name in ("methods", "suites"):
        folder = source / name if (source / name).is_dir() else source.parent / name
        shutil.copytree(folder, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        (place / "nlbench" / name).symlink_to(place / name)

    # The extension of an editable installation lies elsewhere.
    for extension in nlbench.__path__:
        for library in Path(extension).glob("*.so"):
            if not (place / "nlbench" / library.name).exists():
                shutil.copy(library, place / "nlbench")

    # An editable installation finds nlbench before PYTHONPATH does, unless its finder is removed.
    (place / "sitecustomize.py").write_text(
        "import sys\n"
        "own = 'ScikitBuildRedirectingFinder'\n"
        "sys.meta_path = [finder for finder in sys.meta_path if type(finder).__name__ != own]\n"
    )
    return shell(place, PYTHONPATH=str(place))


def plain(text: str) -> str:
    """Return a text without the parts that differ between machines and versions.

    These are numbers, run keys, the widths of columns, the words of a decoder, and the warning of
    a processor without bfloat16.
    """
    text = re.sub(r"(?m)^.*bfloat16.*precision=auto.*\n", "", text)
    text = re.sub(r"\[[0-9a-f]{16}\]", "[key]", text)
    text = re.sub(r"decoded \(.*?\);", "decoded;", text)
    return re.sub(r" +", " ", re.sub(r"\d[\d.e+-]*", "#", text))


def table_frame(text: str) -> list[str]:
    """Return the parts of printed tables that are the same on every machine.

    These are titles, heads, first columns and notes.
    """
    # A wrapped title or note is one line here, because numbers decide where it wraps.
    text = re.sub(r"(?m)(^\*\*[^|]*?\*\*$)", lambda title: title[0].replace("\n", " "), text)
    text = re.sub(r"(?m)\n  (?=\S)", " ", text)
    # Which row comes first depends on the numbers, and whether two tests agree.
    text = re.sub(r"(?m)^(- In words[^:]*:).*$", r"\1", text)
    text = re.sub(r"(?m)^- p and letters disagree .*\n", "", text)

    frame = []
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| method", "| row", "| --")):
            frame.append(line.split("|")[1].strip())
        elif line.startswith(("**", "- ", "| method", "| row")):
            frame.append(plain(line))
    return frame


def follow(page: Path, place: Path, call: Shell) -> None:
    """Do what a page says, from its first block to its last, in the folder `place`.

    A block `sh` is run. It must succeed, unless it is marked `refused`. A block `text` is the
    output of the command before it; marked `figures`, it is a table whose numbers may differ. A
    block marked `later` is skipped. A block `diff` is applied to the file that it names. Every
    other block is a file: it is written whole or, marked `append`, added to one that exists.
    """
    printed = ""
    for block in blocks(page):
        if block.mark == "later":
            continue

        if block.kind == "sh":
            done = call(block.text)
            refused = block.mark == "refused"
            assert (done.returncode != 0) == refused, f"{block.text}{done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr, done.stderr
            printed = done.stderr if refused else done.stdout
        elif block.kind == "text" and block.mark == "figures":
            found, expected = table_frame(printed), table_frame(block.text)
            assert found == expected, "\n".join(difflib.unified_diff(expected, found, lineterm=""))
        elif block.kind == "text":
            found, expected = plain(printed).splitlines(), plain(block.text).splitlines()
            assert found == expected, "\n".join(difflib.unified_diff(expected, found, lineterm=""))
        elif block.kind == "diff":
            apply(block, place)
        else:
            write(block, place)


def apply(block: Block, place: Path) -> None:
    """Apply a diff to a file in `place`.

    Raises: AssertionError unless the old lines of each hunk occur exactly once.
    """
    head, *hunks = re.split(r"(?m)^@@.*\n", block.text)
    path = place / re.search(r"(?m)^\+\+\+ b/(.+)$", head)[1]
    text = path.read_text(encoding="utf-8")

    for hunk in hunks:
        lines = hunk.rstrip("\n").split("\n")
        old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
        new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
        assert text.count(old) == 1, f"{path.name} has these lines {text.count(old)} times:\n{old}"
        text = text.replace(old, new)

    path.write_text(text, encoding="utf-8")


def write(block: Block, place: Path) -> None:
    """Write a block to the file that it names, or add it there.

    Raises: AssertionError if the block names no file.
    """
    assert block.path, f"the first line names no file:\n{block.text}"
    path = place / block.path
    if block.mark == "append":
        text = path.read_text(encoding="utf-8") + "\n" + block.text.partition("\n")[2]
    else:
        text = block.text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
