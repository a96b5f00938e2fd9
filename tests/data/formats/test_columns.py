"""Columns are taken by plain names, or the user is asked which one is meant."""

import pytest

from nlbench.data.formats.columns import is_no_class, label_columns, path_column, words
from nlbench.errors import DataError


def columns(*names, **chosen):
    """Return the columns of the given and of the true labels."""
    found = label_columns(names, "x.csv:1", answer="say which", **chosen)
    return found.given, found.clean


@pytest.mark.parametrize(
    ("names", "given", "clean"),
    [
        (["path", "label"], "label", ""),
        (["path", "label", "clean_label"], "label", "clean_label"),
        (["Path", "Label"], "Label", ""),
        (["label", "label_noisy"], "label_noisy", "label"),
        (["noisy_label", "label"], "noisy_label", "label"),
        (["noisyLabel", "trueLabel"], "noisyLabel", "trueLabel"),
        (["Noisy Label", "Clean Label"], "Noisy Label", "Clean Label"),
        (["y", "y_noisy"], "y_noisy", "y"),
        (["y", "y_tilde"], "y_tilde", "y"),
        (["y_true", "y_noisy"], "y_noisy", "y_true"),
        (["target", "ground_truth"], "target", "ground_truth"),
        (["given_label", "gt"], "given_label", "gt"),
        (["noisylabel", "cleanlabel"], "noisylabel", "cleanlabel"),
        (["labels_clean", "labels"], "labels", "labels_clean"),
        (["observed", "true"], "observed", "true"),
        (["fine_label", "coarse_label"], "fine_label", ""),
        (["label", "label_name", "is_noisy", "label_confidence"], "label", ""),
        (["x", "y", "label"], "label", ""),
        (["x", "category_id"], "category_id", ""),
    ],
)
def test_plain_names(names, given, clean):
    assert columns(*names) == (given, clean)


@pytest.mark.parametrize(
    "names",
    [
        ["label", "target"],
        ["label", "clean_label", "noisy_label"],
        ["noisy_label_1", "noisy_label_2"],
        ["clean_label", "worse_label", "aggre_label"],
        ["label", "true_label", "gt"],
        ["label_a", "label_b"],
        ["y", "y_star"],
        ["original_label", "label"],
        ["label", "pseudo_label"],
    ],
)
def test_names_that_do_not_tell_are_asked_about(names):
    with pytest.raises(DataError, match=r"x\.csv:1: .* which are the given ones.*say which") as at:
        columns(*names)
    for name in names:
        assert repr(name) in str(at.value)

    # The answer is taken as it is.
    assert columns(*names, given=names[1])[0] == names[1]
    assert columns(*names, given=names[1], clean=names[0]) == (names[1], names[0])


def test_the_other_column_is_looked_for_beside_the_named_one():
    names = ["clean_label", "worse_label", "aggre_label"]
    assert columns(*names, given="worse_label") == ("worse_label", "clean_label")
    assert columns("label", "a", "b", given="b") == ("b", "")
    assert columns("label", "target", clean="target") == ("label", "target")


def test_tables_without_given_labels():
    with pytest.raises(DataError, match="'clean_label' holds true labels, and no column holds the"):
        columns("path", "clean_label")
    with pytest.raises(DataError, match=r"has no column 'label', only 'path', 'lable'.*'lable'"):
        columns("path", "lable")
    with pytest.raises(DataError, match="has no column 'noise', only 'label'"):
        columns("label", given="noise")


@pytest.mark.parametrize(
    "names",
    [["path", "file"], ["Path"], ["file_name"], ["Image", "id"], ["x", "filepath"], ["image path"]],
)
def test_the_column_of_the_images(names):
    assert path_column(names, "x.csv:1") in names
    assert path_column(names, "x.csv:1") not in ("file", "id", "x")


def test_columns_of_images_that_do_not_tell():
    with pytest.raises(
        DataError, match=r"'file', 'image' may all be the files.*call the right one"
    ):
        path_column(["file", "image"], "x.csv:1")
    with pytest.raises(DataError, match="no column 'path', only 'a', 'b'"):
        path_column(["a", "b"], "x.csv:1")


def test_words_of_a_name():
    assert words("noisyLabel_2") == ["noisy", "label", "2"]
    assert words("GT-label") == ["gt", "label"]
    assert words("truelabels") == ["true", "labels"]


@pytest.mark.parametrize(
    "label", ["", " ", "NaN", "nan", "NaT", "None", "N/A", "null", "-1", "<NA>"]
)
def test_no_class(label):
    assert is_no_class(label)


@pytest.mark.parametrize("label", ["0", "1", "cat", "nano", "Nana", "non", "background", "none-of"])
def test_classes(label):
    assert not is_no_class(label)
