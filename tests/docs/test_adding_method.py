"""Follow docs/adding/method.md as its readers do.

Its files are written, its commands are run, and their outputs are compared.
"""

import os
import re
import tomllib
from pathlib import Path

import pytest
from pages import DOCS, blocks, follow, shell, table_frame

PAGE = DOCS / "adding" / "method.md"
FILES = {block.path: block.text for block in blocks(PAGE) if block.kind not in ("sh", "text")}


def test_the_page_is_read():
    assert list(FILES)[:3] == ["my_methods/nce_mae.py", "my.yaml", "my_methods/self_ensemble.py"]
    assert sum(block.kind == "sh" for block in blocks(PAGE)) >= 8


def test_the_example_of_a_loss_is_short():
    assert len(FILES["my_methods/nce_mae.py"].splitlines()) <= 26


def install(source: Path, site: Path) -> None:
    """Install a package as `pip install ./noisy-losses` would, but to the folder `site`.

    This needs no index and no build tool, and leaves the environment as it is.
    """
    project = tomllib.loads((source / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]["nlbench.methods"]
    info = site / "noisy_losses-0.1.dist-info"
    info.mkdir(parents=True)

    for module in project["tool"]["setuptools"]["py-modules"]:
        (site / f"{module}.py").write_text((source / f"{module}.py").read_text())

    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy-losses\nVersion: 0.1\n")
    lines = ["[nlbench.methods]"]
    for name, target in points.items():
        lines.append(f"{name} = {target}")
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.mark.story
def test_every_command_of_the_page_works_and_prints_what_it_says(tmp_path):
    site = tmp_path / "site"
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = shell(tmp_path, PYTHONPATH=os.pathsep.join(paths))

    def call(script):
        if "python3 -m pip install" in script:
            install(tmp_path / "noisy-losses", site)
        return run(re.sub(r"(?m)^python3 -m pip install.*\n", "", script))

    follow(PAGE, tmp_path, call)

    # One suite can use a file in the user's folder and an installed package.
    suite = (tmp_path / "my.yaml").read_text()
    suite = suite.replace("name: my", "name: both").replace("[0, 1]", "[0]")
    suite = suite.replace("nce-mae-heavy: {method: nce-mae, beta: 4.0}", "half-ce: {}")
    (tmp_path / "both.yaml").write_text(suite)

    done = run("nlbench run both.yaml --methods-dir my_methods --out results --set epochs=1")

    assert done.returncode == 0, done.stderr
    assert {"nce-mae", "half-ce"} <= set(table_frame(done.stdout))
