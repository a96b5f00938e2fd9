"""The pages of docs/adding as their readers follow them, each in a copy of nlbench."""

import pytest
from pages import DOCS, follow, shell

ADDING = DOCS / "adding"


@pytest.mark.story
@pytest.mark.parametrize("name", ["suite"])
def test_a_page_without_a_change_of_nlbench_can_be_followed(name, tmp_path):
    follow(ADDING / f"{name}.md", tmp_path, shell(tmp_path))
