"""Parquet files with several columns of labels: taken by plain names, or asked about."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import encoded

from nlbench.data.datasets import folder
from nlbench.data.places import Places
from nlbench.errors import DataError, SuiteError
from nlbench.plan.expand import expand
from nlbench.plan.suite_file import read_suite
from nlbench.training.run_data import load_data


@pytest.fixture
def load(tmp_path):
    """Return load(train, ...), which writes a file for each dict of columns and reads them."""

    def write(*shards, **chosen):
        root = tmp_path / "f"
        root.mkdir(exist_ok=True)
        for i, columns in enumerate(shards):
            columns = {"image": [encoded(j, i) for j in range(4)], **columns}
            name = f"train-{i:05}-of-{len(shards):05}.parquet"
            pq.write_table(pa.table(columns), root / name)
        test = {"image": [encoded(j, 9) for j in range(2)], "label": [0, 1]}
        pq.write_table(pa.table(test), root / "test.parquet")
        return folder.load(Places(root, tmp_path / "cache", **chosen), 0)

    return write


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("noisy_label", "label"),
        ("label", "clean_label"),
        ("label_noisy", "true_label"),
        ("y", "gt"),
    ],
)
def test_plain_names(load, given, clean):
    dataset = load({clean: [0, 1, 0, 1], given: [0, 1, 1, 1]})
    assert dataset.label_sets["given"].tolist() == [0, 1, 1, 1]
    assert dataset.label_sets["clean"].tolist() == [0, 1, 0, 1]
    told = [line for line in dataset.warnings if f"given labels are {given!r}" in line]
    assert len(told) == (clean != "clean_label")


def test_names_that_do_not_tell(load):
    with pytest.raises(
        DataError, match=r"'worse_label', 'aggre_label' may all be labels; which are"
    ):
        load({"worse_label": [0, 1, 0, 1], "aggre_label": [0, 1, 1, 1]})


def test_files_with_other_columns(load):
    labels = {"label": [0, 1, 0, 1]}
    with pytest.raises(
        DataError, match=r"its labels are 'label', and .* has 'noisy_label'; give all"
    ):
        load({**labels, "noisy_label": [0, 1, 1, 1]}, labels)


def test_columns_that_the_suite_names(load):
    columns = {"worse_label": [0, 1, 1, 1], "aggre_label": [0, 1, 0, 0], "b": [0, 1, 0, 1]}
    chosen = load(columns, label_column="worse_label", clean_column="b")
    assert chosen.label_sets["given"].tolist() == [0, 1, 1, 1]
    assert chosen.label_sets["clean"].tolist() == [0, 1, 0, 1]
    # The pictures in the cache are those of the columns that were named.
    other = load(columns, label_column="aggre_label")
    assert other.label_sets["given"].tolist() == [0, 1, 0, 0]
    assert "clean" not in other.label_sets
    with pytest.raises(DataError, match="has no column 'worse', only 'image', 'worse_label'"):
        load(columns, label_column="worse")


def test_the_same_in_lists_and_in_a_suite(tmp_path):
    root = tmp_path / "f"
    root.mkdir()
    lines = ["path,label,label_2"]
    for i in range(6):
        (root / f"{i}.png").write_bytes(encoded(i % 2, i))
        lines.append(f"{i}.png,{i % 2},{i // 3}")
    (root / "train.csv").write_text("\n".join(lines))
    (root / "t.png").write_bytes(encoded(0, 9))
    (root / "test.csv").write_text("path,label\nt.png,1\n")

    def expanded(*datasets):
        suite = {"name": "s", "protocol": "images-32", "methods": {"ce": {}}, "seeds": [0]}
        checked, problems = read_suite({**suite, "datasets": list(datasets)})
        places = Places(tmp_path, tmp_path / "cache")
        return expand(checked, problems, places=places).specs[0]

    entry = {"name": "folder", "path": str(root)}
    with pytest.raises(SuiteError, match=r"'label', 'label_2' may all be labels; .*`label`"):
        expanded(entry)
    one, two = (
        expanded({**entry, "label_column": "label"}),
        expanded({**entry, "label_column": "label_2"}),
    )
    assert one.key != two.key
    assert load_data(two, tmp_path).labels_hash != load_data(one, tmp_path).labels_hash
    with pytest.raises(SuiteError, match=r"datasets.1.label_column: is 'label' in an entry above"):
        expanded({**entry, "label_column": "label"}, {**entry, "label_column": "label_2"})
    with pytest.raises(
        SuiteError, match=r"datasets.0.label_column: only a folder of your own takes"
    ):
        expanded({"name": "digits", "label_column": "label"})


def test_the_short_keys_name_the_same_columns(tmp_path):
    root = tmp_path / "f"
    root.mkdir()
    lines = ["thumb,photo,a,b"]
    for i in range(6):
        (root / f"{i}.png").write_bytes(encoded(i % 2, i))
        lines.append(f"none.png,{i}.png,{i % 2},{i // 3}")
    (root / "train.csv").write_text("\n".join(lines))
    (root / "t.png").write_bytes(encoded(0, 9))
    (root / "test.csv").write_text("path,label\nt.png,1\n")

    def expanded(*changed):
        entry = {"name": "folder", "path": str(root), "image": "photo"}
        suite = {"name": "s", "protocol": "images-32", "methods": {"ce": {}}, "seeds": [0]}
        checked, problems = read_suite({**suite, "datasets": [{**entry, **one} for one in changed]})
        return expand(checked, problems, places=Places(tmp_path, tmp_path / "cache")).specs[0]

    short = expanded({"label": "a", "clean_label": "b"})
    assert short.key == expanded({"label_column": "a", "clean_column": "b"}).key
    assert short.key != expanded({"label": "b", "clean_label": "a"}).key
    for wrong, said in (
        ({"label": "a", "image": "foto"}, "has no column 'foto', only .* Did you mean 'photo'"),
        ({"label": "a", "label_column": "a"}, r"datasets.0.label: is the same as label_column"),
        ({"label": "a", "split": "train"}, r"datasets.0.split: only the dataset .*hf takes it"),
    ):
        with pytest.raises(SuiteError, match=said):
            expanded(wrong)
    with pytest.raises(SuiteError, match=r"datasets.1.label: is 'a' in an entry above"):
        expanded({"label": "a"}, {"label": "b"})
    with pytest.raises(SuiteError, match=r"datasets.1.image: is 'photo' in an entry above"):
        expanded({"label": "a"}, {"label": "a", "image": "thumb"})


def test_the_images_are_known_by_the_metadata_of_hugging_face(load, tmp_path):
    images = [encoded(j, 0) for j in range(4)]
    load({"label": [0, 1, 0, 1]})
    file = tmp_path / "f" / "train-00000-of-00001.parquet"
    table = pa.table({"picture": images, "label": [0, 1, 0, 1]})
    features = '{"info": {"features": {"picture": {"_type": "Image"}}}}'
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), file)
    places = Places(tmp_path / "f", tmp_path / "cache")
    assert folder.load(places, 0).label_sets["given"].tolist() == [0, 1, 0, 1]

    # Nor does the name of this column of labels tell.
    table = table.rename_columns(["picture", "species"])
    classes = '"species": {"_type": "ClassLabel", "names": ["owl", "crow"]}'
    features = features.replace("}}}}", "}, " + classes + "}}}")
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), file)
    test = pa.table({"image": [encoded(j, 9) for j in range(2)], "label": ["owl", "crow"]})
    pq.write_table(test, tmp_path / "f" / "test.parquet")
    assert folder.load(places, 0).info.class_names == ("crow", "owl")

    pq.write_table(table, file)
    with pytest.raises(DataError, match=r"has picture, species; .*`image: NAME`"):
        folder.load(places, 0)
