"""Follow docs/your-own-texts.md as its readers do."""

import pytest
from pages import DOCS, blocks, follow, shell

PAGE = DOCS / "your-own-texts.md"


@pytest.mark.story
def test_three_commands_lead_from_a_csv_file_of_texts_to_a_table_of_five_methods(tmp_path):
    # The fourth one checks the file, and is no step of the way.
    assert sum(block.kind == "sh" for block in blocks(PAGE)) == 4
    follow(PAGE, tmp_path, shell(tmp_path))
