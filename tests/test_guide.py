"""docs/adding/method.md as a new user follows it: its files are written, its commands run, its outputs compared."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs" / "adding" / "method.md"
BLOCK = re.compile(r"^(?:<!-- (?P<mark>\w+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(GUIDE.read_text(encoding="utf-8"))]
FILES = {
    re.match(r"# (\S+)", block["text"])[1]: block["text"] for block in BLOCKS if block["kind"] not in ("sh", "text")
}


def test_the_page_is_read():
    assert list(FILES)[:3] == ["my_methods/nce_mae.py", "my.yaml", "my_methods/selc.py"]
    assert sum(block["kind"] == "sh" for block in BLOCKS) >= 8
    assert "```" not in BLOCK.sub("", GUIDE.read_text(encoding="utf-8"))


def test_the_example_of_a_loss_is_short():
    assert len(FILES["my_methods/nce_mae.py"].splitlines()) <= 25


def test_the_files_it_points_to_are_there():
    for path in re.findall(r"`((?:methods|nlbench|tests)/[\w/]+\.py)`", GUIDE.read_text(encoding="utf-8")):
        assert (GUIDE.parents[2] / path).is_file(), path


def install(place: Path) -> None:
    """As `pip install ./noisy-losses`, without an index, a build tool or the environment's site-packages."""
    source, site = place / "noisy-losses", place / "site"
    project = tomllib.loads((source / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]["nlbench.methods"]
    info = site / "noisy_losses-0.1.dist-info"
    info.mkdir(parents=True)
    for module in project["tool"]["setuptools"]["py-modules"]:
        (site / f"{module}.py").write_text((source / f"{module}.py").read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy-losses\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(
        "[nlbench.methods]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
    )


def names(table: str) -> list[str]:
    """The first column of a table."""
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]


def plain(text: str) -> str:
    """Without what may differ between processors, numbers, and between versions, the width of a column of names."""
    return re.sub(r" +", " ", re.sub(r"\d[\d.e+-]*", "#", text))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("guide")


@pytest.fixture(scope="module")
def shell(place):
    """shell(script) -> the finished process; nothing of the machine's own methods or data is seen."""
    own = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(place / "site")}
    own |= {"NLBENCH_CACHE": str(place / "cache"), "NLBENCH_DATA": str(place / "no-data"), "NLBENCH_METHODS": ""}

    def call(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", script], cwd=place, env=os.environ | own, capture_output=True, text=True, timeout=300
        )

    return call


def test_every_command_of_the_page_works_and_prints_what_it_says(place, shell):
    printed = ""
    for block in BLOCKS:
        text = block["text"]
        if block["kind"] == "sh":
            for line in text.splitlines():
                if line.startswith("python3 -m pip install"):
                    install(place)
                    text = text.replace(f"{line}\n", "")
            done = shell(text)
            assert done.returncode == 0, f"{text}{done.stdout}{done.stderr}"
            printed = done.stdout
        elif block["kind"] == "text" and block["mark"] == "figures":
            assert names(text) == names(printed)
            assert text.splitlines()[0] == printed.splitlines()[0]
        elif block["kind"] == "text":
            assert plain(printed) == plain(text)
        else:
            path = place / re.match(r"# (\S+)", text)[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    suite = (place / "my.yaml").read_text().replace("nce-mae-heavy: {method: nce-mae, beta: 4.0}", "half-ce: {}")
    (place / "both.yaml").write_text(suite.replace("name: my", "name: both").replace("seeds: [0, 1]", "seeds: [0]"))
    done = shell("nlbench run both.yaml --methods-dir my_methods --out results --set epochs=1")
    assert done.returncode == 0, done.stderr
    assert names(done.stdout)[-2:] == ["nce-mae", "half-ce"]  # a file outside, and an installed package
