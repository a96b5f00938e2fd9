"""Figures of docs/why-numbers-differ.md that can be counted."""

import re

import numpy as np
import pytest
from pages import DOCS

from nlbench.results.published import records

TEXT = (DOCS / "why-numbers-differ.md").read_text(encoding="utf-8")


def line_of(beginning):
    """Return the numbers in the only line of a table that begins with these words."""
    lines = [line for line in TEXT.splitlines() if line.startswith(f"| {beginning} |")]
    assert len(lines) == 1, beginning
    return list(map(float, re.findall(r"\d+\.\d+", lines[0])))


def shares_with_flips_taken_back(r, rng, num=5000):
    """Return the shares of cats, and of all labels, that are wrong where dogs are chosen last.

    Each of the ten classes has `num` images. The five classes that keep their labels count in the
    second share.
    """
    cat, dog = 3, 5
    clean = np.repeat(np.arange(10), num)
    given = clean.copy()
    for source, target in ((9, 1), (2, 0), (cat, dog), (dog, cat), (4, 7)):
        members = np.flatnonzero(given == source)
        given[rng.choice(members, round(r * len(members)), replace=False)] = target
    return (given != clean)[clean == cat].mean(), (given != clean).mean()


@pytest.mark.parametrize(("i", "r"), list(enumerate((0.1, 0.2, 0.3, 0.4))))
def test_flips_that_are_taken_back_have_the_rates_of_the_page(i, r):
    cats = line_of("cats wrong, r - r²")[i]
    everything = line_of("all labels wrong, r/2 - r²/10")[i]

    assert cats == pytest.approx(r - r * r, abs=5e-3)
    assert everything == pytest.approx(r / 2 - r * r / 10, abs=5e-4)

    rng = np.random.default_rng(0)
    drawn = np.mean([shares_with_flips_taken_back(r, rng) for _ in range(20)], axis=0)
    # Of the cats that were turned into dogs, a share r is chosen with the dogs and turned back.
    assert drawn[0] == pytest.approx(cats, abs=5e-3)
    assert drawn[1] == pytest.approx(everything, abs=1e-3)


def test_the_page_says_how_many_numbers_are_published():
    assert f"lists {len(records.load()):,} published numbers" in TEXT
