"""Follow docs/your-own-table.md as its readers do."""

import pytest
from pages import DOCS, blocks, follow, shell

PAGE = DOCS / "your-own-table.md"


@pytest.mark.story
def test_three_commands_lead_from_a_csv_file_to_a_table_of_five_methods(tmp_path):
    assert sum(block.kind == "sh" for block in blocks(PAGE)) == 6
    follow(PAGE, tmp_path, shell(tmp_path))
