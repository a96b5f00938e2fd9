"""Check links between pages, files that pages name, and the picture of the layout."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    found = set()
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            words = re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower())
            found.add(words.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    for path, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        # A link without a path leads to a heading of the same page.
        target = (page.parent / path).resolve() if path else page

        assert target.exists(), f"{path} does not exist"
        if anchor:
            assert anchor in anchors(target), f"{path} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    # A block of code whose first line is a path tells the reader to write that file.
    made_here = set(re.findall(r"(?m)^(?:#|//) (\S+)$", text))
    named = re.findall(r"`((?:nlbench|methods|suites|csrc|tests|docs)/[\w./-]+\.\w+)`", text)
    for path in set(named) - made_here:
        assert (ROOT / path).exists(), f"{path} does not exist"


def test_every_page_can_be_reached_from_the_readme():
    waiting, seen = [ROOT / "README.md"], set()
    while waiting:
        page = waiting.pop()
        seen.add(page)

        targets = set()
        for path, _ in LINK.findall(page.read_text(encoding="utf-8")):
            if path.endswith(".md"):
                targets.add((page.parent / path).resolve())
        waiting += sorted(targets - seen)

    assert set(PAGES) <= seen


def test_the_picture_of_the_layout_shows_every_folder():
    picture = (ROOT / "docs" / "layout.svg").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "nlbench").glob("*/__init__.py")}
    # The picture shows these two beside the package, where they lie in a checkout.
    folders -= {"methods", "suites"}

    assert folders
    for folder in folders:
        assert f">{folder}</text>" in picture, f"docs/layout.svg does not show nlbench/{folder}"


def test_the_map_of_the_code_names_files_that_exist():
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    lines = re.findall(r"(?m)^\| `(\w+)` \| .* \| `([\w/]+\.py)` \|$", page)

    assert len(lines) >= 8
    for folder, file in lines:
        assert (ROOT / "nlbench" / folder / file).is_file(), f"nlbench/{folder}/{file}"
