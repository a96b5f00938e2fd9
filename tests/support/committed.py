"""The committed records of results/, and the places of pages that a command made from them.

    python tests/support/committed.py

makes them again. In a page what a command printed stands between two lines, and the command that
drew a figure stands below it:

    <!-- printed by: nlbench table results --suite cifar10n-cpu -->

    `nlbench table results --suite cifar10n-cpu`:

    ...
    <!-- end of what was printed -->

    ![Differences to cross entropy](figures/results-differences.svg)

    `nlbench plot differences results --suite cifar10n-cpu` draws this figure.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")

_BEGIN, _END = "<!-- printed by: ", "<!-- end of what was printed -->"
_PLACE = re.compile(
    rf"^{re.escape(_BEGIN)}(?P<command>nlbench .+?) -->\n(?P<printed>.*?)^{re.escape(_END)}$",
    re.DOTALL | re.MULTILINE,
)


_FIGURE = re.compile(
    r"^!\[[^\]]*\]\((?P<path>[^)]+\.svg)\)\n\n`(?P<command>nlbench plot .+?)` draws this figure\.$",
    re.MULTILINE,
)


def records() -> list[str]:
    """Return the paths of the committed records, relative to the repository."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "results"]
    found = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    return [path for path in found.split("\0") if path]


def copy_records(target: Path) -> None:
    """Copy the committed records to `target`/results, and nothing that lies beside them."""
    for path in records():
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, copy)


def places(page: Path) -> list[tuple[str, str]]:
    """Return each command of a page with the text that stands there."""
    return [(m["command"], m["printed"]) for m in _PLACE.finditer(page.read_text())]


def printed(command: str, folder: Path) -> str:
    """Return a command and what it prints, as they stand in a page.

    Args:
        folder: the command's working directory, which holds results/.
    """
    program = [sys.executable, "-c", "from nlbench.cli import main; main()"]
    words = shlex.split(command)[1:]
    run = subprocess.run([*program, *words], cwd=folder, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{command}: exit status {run.returncode}\n{run.stderr}")
    return f"\n`{command}`:\n\n{run.stdout.strip()}\n\n"


def figures(page: Path) -> list[tuple[str, Path]]:
    """Return each command of a page that draws a figure, with the figure's file."""
    found = _FIGURE.finditer(page.read_text())
    return [(m["command"], page.parent / m["path"]) for m in found]


def draw(command: str, folder: Path, target: Path) -> None:
    """Draw a figure of a page.

    Args:
        folder: the command's working directory, which holds results/.
        target: the file.
    """
    printed(f"{command} --to {shlex.quote(str(target))}", folder)


def main() -> None:
    """Print and draw every place again."""
    with tempfile.TemporaryDirectory() as folder:
        copy_records(Path(folder))
        for page in PAGES:
            text = page.read_text()

            def again(match: re.Match[str]) -> str:
                output = printed(match["command"], Path(folder))
                return f"{_BEGIN}{match['command']} -->\n{output}{_END}"

            page.write_text(_PLACE.sub(again, text))
            for command, figure in figures(page):
                draw(command, Path(folder), figure)


if __name__ == "__main__":
    main()
