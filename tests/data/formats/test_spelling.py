"""A file that a list spells otherwise is found, and the message says what differs."""

import pytest

from nlbench.data.datasets import folder
from nlbench.data.formats.spelling import other_spelling
from nlbench.data.places import Places
from nlbench.errors import DataError


@pytest.fixture
def root(tmp_path):
    """Make a folder with some files."""
    for name in (
        "im/00.png",
        "im/café.jpg",
        "im/A b.JPG",
        "im/deep/x.png",
        "other/00.gif",
        "y.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "there", "how"),
    [
        ("im\\00.png", "im/00.png", r"write / in place of \\"),
        ("00.png", "im/00.png", "write the folder before the name"),
        ("data/im/00.png", "im/00.png", "leave the folder out"),
        ("im/00", "im/00.png", "with its folder and its suffix"),
        ("deep/x.png", "im/deep/x.png", "write the folder before the name"),
        ("im/cafe\u0301.jpg", "im/café.jpg", "composed or decomposed"),
        ("im/a B.jpg", "im/A b.JPG", "upper and lower case"),
        ("IM/00.png", "im/00.png", "upper and lower case"),
        ("Y.PNG", "y.png", "upper and lower case"),
        ("x", "im/deep/x.png", "with its folder and its suffix"),
    ],
)
def test_what_differs_is_said(root, name, there, how):
    hint = other_spelling(root, name)
    assert hint.startswith(f"; there is {there!r}: ")
    assert how.replace("\\\\", "\\") in hint


@pytest.mark.parametrize("name", ["test/00.png", "00", "z.png", "im/00.png", "other/x.png", ""])
def test_other_files_are_not_named(root, name):
    assert other_spelling(root, name) == ""


@pytest.mark.parametrize("name", ["a" * 300, f"{'b' * 300}/a.png", "/".join(["c"] * 3000)])
def test_names_that_no_file_can_have(tmp_path, name):
    """They are absent like others, and no traceback."""
    (tmp_path / "f" / "test" / "ant").mkdir(parents=True)
    (tmp_path / "f" / "test" / "ant" / "t.png").touch()
    (tmp_path / "f" / "train.csv").write_text(f"path,label\n{name},ant\nb.png,bee\n")
    with pytest.raises(
        DataError, match=r"train.csv:2: no image .* more than 1% are missing: was all"
    ):
        folder.load(Places(tmp_path / "f", tmp_path / "cache"), 0)
