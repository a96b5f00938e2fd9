"""Say what is odd about the names of classes."""

from __future__ import annotations

from collections.abc import Sequence


def about_class_names(classes: Sequence[str]) -> list[str]:
    """Say which classes look like one class, as "Pos" and "pos" do."""
    notes = []
    plain: dict[str, str] = {}
    for name in classes:
        other = plain.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            notes.append(f"{other!r} and {name!r} are two classes; is one misspelt?")
    return notes
