"""Follow docs/embed.md as its readers do."""

from dataclasses import fields

import pytest
from pages import DOCS, blocks, follow, shell

from nlbench.embedding.patches import IMAGES_PER_DIM, PATCHES, Settings

PAGE = DOCS / "embed.md"


@pytest.mark.story
def test_three_commands_lead_from_a_folder_of_pictures_to_a_table(tmp_path):
    script = next(b for b in blocks(DOCS / "your-own-data.md") if b.path == "make_shapes.py")
    (tmp_path / "make_shapes.py").write_text(script.text)

    # The first one makes the pictures, which a reader would have.
    assert sum(block.kind == "sh" for block in blocks(PAGE)) == 1 + 3
    follow(PAGE, tmp_path, shell(tmp_path, NLBENCH_WORKERS="0"))


def test_the_page_says_what_the_extractor_does():
    text = PAGE.read_text()
    usual = {field.name: field.default for field in fields(Settings)}
    assert f"{PATCHES:,} patches of {usual['patch']}x{usual['patch']} pixels" in text
    assert f"up to {usual['sample']:,} training images" in text
    assert f"find {usual['filters']} centroids" in text
    assert f"averaged over {usual['cells']}x{usual['cells']} parts" in text
    assert f"{usual['dims']} unless you say otherwise" in text
    assert 240 // IMAGES_PER_DIM == 48
