"""Follow docs/noise.md as its readers do, and look for every kind of noise on it."""

import re

import pytest
from pages import DOCS, blocks, follow, shell

from nlbench.data.datasets import cifar10, cifar100, digits
from nlbench.data.noise import label_files, matrix_files
from nlbench.data.noise.kinds import KINDS

PAGE = DOCS / "noise.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.story
def test_every_command_of_the_page_works_and_prints_what_it_says(tmp_path):
    assert sum(block.kind == "sh" for block in blocks(PAGE)) == 10
    follow(PAGE, tmp_path, shell(tmp_path, NLBENCH_WORKERS="0"))


def test_every_kind_has_its_line():
    described = re.findall(r"(?m)^\| `([a-z-]+)` \|", TEXT)
    assert set(described) == set(KINDS)


def test_every_dataset_that_takes_noise_has_its_order_and_classes():
    for info in (cifar10.INFO, cifar100.INFO, digits.INFO):
        assert len(re.findall(rf"(?m)^\| [\w, ]*\b{info.name}\b[\w, ]* \|", TEXT)) == 2


@pytest.mark.parametrize("files", [label_files, matrix_files])
def test_every_format_is_named(files):
    for suffix in files.SUFFIXES:
        assert f"`{suffix}`" in TEXT
