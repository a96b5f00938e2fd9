"""Texts of one's own: the forms of a table, its columns and parts, and what is refused."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import Imdb

import nlbench
from nlbench import registry
from nlbench.contract.strong import uses_strong_views
from nlbench.data import catalogue
from nlbench.data.places import FolderOptions, Places, TableOptions
from nlbench.errors import DataError, DataMissing, SuiteError
from nlbench.results.store import Store

ROWS = [
    ("good film", "yes", "train"),
    ("bad film", "no", "train"),
    ("n/a", "no", "train"),
    ("null", "yes", "train"),
    ("a bad, bad \u2018plot\u2019", "no", "test"),
    ("good plot", "yes", "test"),
]
HEADER = ("text", "label", "part")


def write_csv(path, rows=ROWS, header=HEADER):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write(path, rows=ROWS, header=HEADER):
    """Write a table in the form of the path's suffix."""
    if path.suffix == ".csv":
        return write_csv(path, rows, header)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


def load(path, split="part", **options):
    places = Places(path.parent, path.parent / "cache")
    options = FolderOptions(table=TableOptions(split=split), **options)
    return catalogue.open_dataset("text", path, places, 0, options)


def refused(path, *words, kind=DataError, **options):
    with pytest.raises(kind) as caught:
        load(path, **options)
    for word in words:
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_in_each_form_is_one_dataset(tmp_path, form):
    path = tmp_path / f"reviews.{form}"
    if form == "tsv":
        path.write_text("\n".join("\t".join(row) for row in [HEADER, *ROWS]), encoding="utf-8")
    else:
        write(path)
    data = load(path)

    # By frequency: bad, film and good come first in the training texts, then the others by letters.
    # film 2 | a, bad, good, n, null 1 each
    assert data.train_images.tolist() == [[5, 2, 0, 0], [4, 2, 0, 0], [6, 3, 0, 0], [7, 0, 0, 0]]
    # "plot" is in no training text.
    assert data.test_images.tolist() == [[3, 4, 4, 1], [5, 1, 0, 0]]
    assert data.label_sets["given"].tolist() == [1, 0, 0, 1]
    assert data.test_labels.tolist() == [0, 1]
    info = data.info
    assert (info.name, info.title) == (f"text:reviews.{form}", "reviews")
    assert (info.class_names, info.shape, info.vocabulary) == (("no", "yes"), (4,), 5000)
    assert data.fingerprint == load(write(tmp_path / "other.csv")).fingerprint


def test_vocabulary_and_length_are_those_of_the_suite(tmp_path):
    data = load(write(tmp_path / "t.csv"), vocabulary=4, length=2)
    assert data.info.vocabulary == 4
    # Only film and a have numbers, and the last two words of a text are kept.
    assert data.train_images.tolist() == [[1, 2], [1, 2], [1, 3], [1, 0]]
    assert data.test_images.tolist() == [[1, 1], [1, 1]]
    assert data.fingerprint != load(tmp_path / "t.csv").fingerprint


def test_a_folder_with_a_file_for_each_part(tmp_path):
    write(tmp_path / "train.csv", ROWS[:4])
    write(tmp_path / "test.jsonl", [row[:2] for row in ROWS[4:]], HEADER[:2])
    data = load(tmp_path, split="")
    assert len(data.train_images) == 4
    assert data.test_labels.tolist() == [0, 1]


def test_columns_of_other_names_and_true_labels(tmp_path):
    rows = [(text, label, "yes", part) for text, label, part in ROWS]
    path = write(tmp_path / "t.csv", rows, ("said", "seen", "really", "part"))
    data = load(path, text="said", label_column="seen", clean_column="really")
    assert data.label_sets["given"].tolist() == [1, 0, 0, 1]
    assert data.label_sets["clean"].tolist() == [1, 1, 1, 1]
    assert data.test_labels.tolist() == [1, 1]

    # Without labels to doubt, the true ones are all that there is, and noise can be drawn on them.
    path = write(tmp_path / "clean.csv")
    data = load(path, clean_column="label")
    assert list(data.label_sets) == ["clean"]


def test_true_labels_may_be_known_of_a_part(tmp_path):
    rows = [(*row, row[1] if i != 2 else "") for i, row in enumerate(ROWS)]
    data = load(write(tmp_path / "t.csv", rows, (*HEADER, "clean_label")))
    assert list(data.label_sets) == ["given"]
    assert data.partly_clean.tolist() == [1, 0, -1, 1]


def test_classes_of_whole_numbers_are_in_the_order_of_numbers(tmp_path):
    rows = [("a", "10", "train"), ("b", "9", "train"), ("c", "9", "test")]
    assert load(write(tmp_path / "t.csv", rows)).info.class_names == ("9", "10")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_true_labels_with_a_point_are_the_classes_of_the_given_ones(tmp_path, form):
    # pandas writes a column of whole numbers so when some of them are missing.
    true = ["1.0", "0.0", "0.0", "", "0.0", "1.0"]
    given = ["1", "0", "1", "1", "0", "1"]
    rows = [(row[0], *of, row[2]) for row, *of in zip(ROWS, given, true, strict=True)]
    header = ("text", "label", "clean_label", "part")
    data = load(write(tmp_path / f"t.{form}", rows, header))
    assert data.info.class_names == ("0", "1")
    assert data.label_sets["given"].tolist() == [1, 0, 1, 1]
    assert data.partly_clean.tolist() == [1, 0, 0, -1]


def test_the_labels_minus_one_and_one_are_classes(tmp_path):
    rows = [(text, {"yes": "1", "no": "-1"}[label], part) for text, label, part in ROWS]
    data = load(write(tmp_path / "t.csv", rows))
    assert data.info.class_names == ("-1", "1")
    assert data.label_sets["given"].tolist() == [1, 0, 0, 1]
    # Beside another class, -1 says that the label is hidden.
    refused(write(tmp_path / "u.csv", [*rows, ("a", "2", "train")]), "u.csv:3: label '-1' says")


def test_classes_that_look_like_one_are_named_in_a_warning(tmp_path):
    data = load(write(tmp_path / "t.csv", [*ROWS, ("fine film", "Yes", "train")]))
    assert any("t.csv: 'Yes' and 'yes' are two classes; is one mis" in w for w in data.warnings)


def test_labels_of_the_test_part_must_have_a_column_of_the_training_part(tmp_path):
    write(tmp_path / "train.csv", ROWS[:4], ("text", "noisy_label", "part"))
    write(tmp_path / "test.csv", ROWS[4:], ("text", "label", "part"))
    refused(tmp_path, "its test part has none of the columns of labels 'noisy_label'", split="")


def test_classes_have_the_order_of_the_files_names(tmp_path):
    names = ["yes", "no", "neither"]
    table = pa.table(
        {
            "text": [row[0] for row in ROWS],
            "part": [row[2] for row in ROWS],
            "label": [names.index(row[1]) for row in ROWS],
        }
    )
    metadata = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, tmp_path / "t.parquet")
    data = load(tmp_path / "t.parquet")
    assert data.info.class_names == tuple(names)
    assert data.label_sets["given"].tolist() == [0, 1, 1, 0]
    assert any("no training row has the class neither" in note for note in data.warnings)


def test_names_of_classes_are_those_of_the_hub(tmp_path):
    small = Imdb()
    small.write_parquet(tmp_path / "hub")
    for part in ("train", "test"):
        (tmp_path / "hub" / f"{part}-00000-of-00001.parquet").rename(tmp_path / f"{part}.parquet")
    assert load(tmp_path, split="").info.class_names == ("neg", "pos")


def test_test_share_draws_the_same_texts_and_keeps_copies_together(tmp_path):
    rows = [(f"word{i % 50} x", "ab"[i % 2], "") for i in range(100)]
    path = write(tmp_path / "t.csv", [row[:2] for row in rows], HEADER[:2])
    data = load(path, split="", test_share=0.2)
    again = load(path, split="", test_share=0.2)
    assert len(data.test_images) == 20
    np.testing.assert_array_equal(data.test_images, again.test_images)
    # Each text is there twice. One that is in both parts would be named in a warning.
    assert not any("training texts as well" in warning for warning in data.warnings)
    assert any("may be as wrong as those of the training rows" in w for w in data.warnings)


def test_odd_texts_are_named_in_warnings(tmp_path):
    rows = [*ROWS, ("...", "no", "train"), ("", "no", "train"), ("good film", "yes", "test")]
    rows += [("\u4f60\u597d", "no", "test")]
    data = load(write(tmp_path / "t.csv", rows))
    text = "\n".join(data.warnings)
    assert "t.csv:8: has no word (the first of 2 of 6 train texts)" in text
    assert "1 of 4 test texts are training texts as well, the first:" in text
    assert "25% of the test texts have no word of the training texts" in text
    # A text without words is one unknown word.
    assert data.train_images[4].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("rows", "header", "options", "words"),
    [
        (ROWS, ("a", "label", "part"), {}, ["has no column text", "Name the column with `text: "]),
        (ROWS, ("text", "label", "review"), {}, ["'text', 'review' may all hold the texts"]),
        (ROWS, HEADER, {"text": "txt"}, ["`text` names 'txt'", "Did you mean 'text'?"]),
        (ROWS, HEADER, {"label_column": "lab"}, ["`label` names 'lab'", "Did you mean 'label'?"]),
        (ROWS, HEADER, {"split": "prat"}, ["`split` names 'prat'", "Did you mean 'part'?"]),
        (ROWS, HEADER, {"test_share": 0.2}, ["both choose the test texts; keep one"]),
        (ROWS, HEADER, {"split": "", "test_share": 0.4}, ["parts the rows", "`split: COLUMN`"]),
        ([("a", "no", "here")], HEADER, {}, ["t.csv:2: part is 'here'. A text is of the part"]),
        ([*ROWS, ("a", "", "train")], HEADER, {}, ["t.csv:8: label is empty; take such rows out"]),
        ([*ROWS, ("a", "n/a", "train")], HEADER, {}, ["label 'n/a' says that there is no label"]),
        ([("a", "no", "train")], HEADER, {}, ["there are no test texts"]),
        ([*ROWS[:1], *ROWS[-1:]], HEADER, {}, ["holds one class, yes; at least two are needed"]),
        ([*ROWS, ("a", "nope", "test")], HEADER, {}, ["t.csv:8: no training row has the class"]),
        ([], HEADER, {}, ["holds no rows"]),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_fix(tmp_path, rows, header, options, words):
    refused(write(tmp_path / "t.csv", rows, header), *words, **options)


def test_texts_that_are_not_there_are_refused(tmp_path):
    refused(tmp_path / "no.csv", "no such file", kind=DataMissing)
    refused(write(tmp_path / "t.csv"), "`test_share: 0.2`", kind=DataMissing, split="")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "there is none of train.csv", kind=DataMissing, split="")
    write(tmp_path / "folder" / "train.csv")
    write(tmp_path / "folder" / "train.jsonl")
    refused(tmp_path / "folder", "train.csv and train.jsonl are one part; keep one", split="")


def test_damaged_files_are_named_with_the_line(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "a", ')
    refused(path, "t.jsonl:2: is no JSON", "was it cut off?")
    path.write_text('["text"]')
    refused(path, "t.jsonl:1: must be an object")
    path.write_text('{"text": "a", "label": 1}\n{"text": null, "label": 0}')
    refused(path, "t.jsonl:2: there is no text; take the row out")

    path = tmp_path / "t.csv"
    path.write_bytes("text,label\nlàlà,1\n".encode("latin-1"))
    refused(path, "t.csv:2: byte 12 is no UTF-8; save the file as UTF-8")
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 nothing")
    refused(path, "t.parquet: cannot be read as parquet")
    path = tmp_path / "t.xlsx"
    path.write_bytes(b"PK\3\4")
    refused(path, "t.xlsx: must be one of .csv, .tsv, .jsonl, .parquet")


# ---- Suites --------------------------------------------------------------------------------------


@pytest.fixture
def suite(tmp_path):
    """Return a suite of 60 short texts, some of them without words that tell the class."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        words = rng.choice([["red", "warm"], ["blue", "cold"]][i % 2], 3)
        rows.append((" ".join(words), "ab"[i % 2], "test" if i % 3 == 0 else "train"))
    path = write(tmp_path / "words.csv", rows)
    return {
        "name": "words",
        "protocol": "texts",
        "overrides": {"epochs": 2, "batch_size": 16, "model": "lstm-width=8"},
        "datasets": [{"name": "text", "path": str(path), "split": "part"}],
        "methods": {"ce": {}},
        "seeds": [0],
    }


MIX = ["disc", "dividemix", "elr-plus", "m-dyr", "mixup", "pes", "pls", "promix", "ssr", "unicon"]


def test_methods_that_mix_or_need_views_are_refused_before_the_first_run(suite, tmp_path):
    suite["methods"] = {name: {} for name in [*MIX, "gjs", "sop-plus", "ce", "elr"]}
    suite["methods"]["elr-plus-unmixed"] = {"method": "elr-plus", "mixup_a": 0.0}
    with pytest.raises(SuiteError) as caught:
        nlbench.run(suite, out=tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(MIX) + 2
    for name, line in zip(MIX, lines, strict=False):
        assert f"{name} mixes inputs, as mixup does, and words holds texts" in line
    for name, line in zip(["gjs", "sop-plus"], lines[len(MIX) :], strict=True):
        assert f"{name} learns from strong views of images, and words holds texts" in line
    assert all(line.endswith("leave the row out") for line in lines)


@pytest.mark.methods
@pytest.mark.parametrize("name", [*registry.method_files([])])
def test_every_method_trains_on_texts_or_says_why_not(suite, tmp_path, name):
    """Check that a method which does not declare it mixes no inputs, since a text refuses that."""
    suite["methods"] = {name: {}}
    # Some methods must be told it.
    suite["datasets"][0]["noise_rate"] = 0.2
    method = registry.load_method(registry.method_files([])[name])
    if name in MIX or uses_strong_views(method):
        with pytest.raises(SuiteError, match="leave the row out"):
            nlbench.run(suite, out=tmp_path / "out")
        return
    records = nlbench.run(suite, out=tmp_path / "out")
    assert records["status"].tolist() == ["done"]


def test_an_undeclared_mixture_fails_with_the_reason(suite, tmp_path):
    (tmp_path / "blend.py").write_text(
        "from torch.nn import functional as F\n"
        "from nlbench.method import Method\n\n\n"
        "class Blend(Method):\n"
        "    def training_step(self, run, batch):\n"
        "        mixed = 0.5 * batch.images + 0.5 * batch.images.flip(0)\n"
        "        run.backward_step(F.cross_entropy(run.networks[0](mixed), batch.labels))\n"
    )
    suite["methods"] = {"blend": {}}
    nlbench.run(suite, out=tmp_path / "out", methods_dir=tmp_path)
    store = Store(tmp_path / "out")
    (key,) = store.run_keys()
    assert "sets mixes_inputs = True, and cannot train on texts" in store.read(key).error["message"]


@pytest.mark.parametrize("kind", ["instance-dependent", "instance-dependent-standardised"])
def test_noise_that_looks_at_images_is_refused(suite, tmp_path, kind):
    entry = suite["datasets"][0]
    entry |= {"clean_label": "label", "noise": {"kind": kind, "rate": 0.2}}
    with pytest.raises(SuiteError, match="depends on pixels or features, and words is texts"):
        nlbench.run(suite, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clean_val": "val"}, "clean_val: only a folder of images takes it"),
        ({"label": "a", "label_column": "b"}, "label: is the same as label_column"),
        ({"vocabulary": 2}, "vocabulary: must be at least 3"),
        ({"missing": "mean"}, "missing: only the dataset features or hf takes it"),
        ({"path": ""}, "text needs a path"),
    ],
)
def test_wrong_keys_are_refused(suite, tmp_path, change, words):
    suite["datasets"][0] |= change
    with pytest.raises(SuiteError, match=words):
        nlbench.run(suite, out=tmp_path / "out")


@pytest.mark.parametrize("key", ["vocabulary", "length"])
def test_keys_of_texts_are_refused_elsewhere(suite, tmp_path, key):
    suite["datasets"] = [{"name": "digits", key: 5}]
    with pytest.raises(SuiteError, match=f"{key}: only the dataset text or hf takes it"):
        nlbench.run(suite, out=tmp_path / "out")


def test_models_of_images_are_refused_on_texts_and_the_reverse(suite, tmp_path):
    suite["overrides"] = {"model": "cnn3"}
    with pytest.raises(
        SuiteError, match=r"model cnn3: takes no texts\. There are, for texts: lstm"
    ):
        nlbench.run(suite, out=tmp_path / "out")
    suite |= {"datasets": [{"name": "digits"}], "overrides": {}}
    with pytest.raises(SuiteError, match="model lstm: is for texts, and these examples are none"):
        nlbench.run(suite, out=tmp_path / "out")


def test_kept_networks_predict_numbers_of_words(suite, tmp_path):
    records = nlbench.run(suite, out=tmp_path / "out", save_weights=True)
    trained = nlbench.load_weights(records.index[0], tmp_path / "out")
    data = load(tmp_path / "words.csv")
    probs = trained.probabilities(data.test_images)
    accuracy = float((probs.argmax(1) == data.test_labels).mean())
    assert accuracy == pytest.approx(trained.test_accuracy)
