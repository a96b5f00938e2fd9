"""How to cite nlbench, from CITATION.cff, and the papers of the methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench import registry

if TYPE_CHECKING:
    from nlbench.registry import MethodFile

# In an installed package the file lies in the package, and in the sources beside it.
_PLACES = (Path(__file__).parents[1] / "CITATION.cff", Path(__file__).parents[2] / "CITATION.cff")


@dataclass(frozen=True)
class Citation:
    """How to cite nlbench.

    Attributes:
        message: what the file asks for.
        text: one line for a list of references.
        bibtex: an entry for BibTeX.
    """

    message: str
    text: str
    bibtex: str


def of_nlbench() -> Citation | None:
    """Return how to cite nlbench; None where its CITATION.cff is not there."""
    from ruamel.yaml import YAML

    path = next((place for place in _PLACES if place.is_file()), None)
    if path is None:
        return None
    values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    authors = [_author(author) for author in values["authors"]]
    title, version = values["title"], values["version"]
    year = str(values.get("date-released", ""))[:4]
    address = values.get("doi") or values.get("url") or values.get("repository-code") or ""

    text = f"{', '.join(authors)}. {title}. Version {version}"
    text += "".join(f", {part}" for part in (year, address) if part) + "."
    fields = {"author": " and ".join(f"{{{name}}}" for name in authors), "title": f"{{{title}}}"}
    fields |= {"version": version, "year": year, "url": address}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    bibtex = "\n".join(["@software{nlbench,", *lines, "}"])
    return Citation(values.get("message", ""), text, bibtex)


def _author(values: Mapping[str, Any]) -> str:
    parts = (values.get("given-names", ""), values.get("family-names", ""))
    return values.get("name") or " ".join(part for part in parts if part)


def of_methods(names: Iterable[str], files: Mapping[str, MethodFile]) -> dict[str, str]:
    """Return the first line of each method's file, which names its paper, by method."""
    found = {}
    for name in sorted(set(names)):
        if name in files:
            found[name] = registry.first_line(files[name].path)
    return found
