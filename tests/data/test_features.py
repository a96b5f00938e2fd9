"""The dataset `features`: tables of one's own, compared with scikit-learn and with each other."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from typer.testing import CliRunner

import nlbench
from nlbench import registry
from nlbench.cli import app
from nlbench.data import catalogue, feature_matrix
from nlbench.data.datasets import features
from nlbench.data.formats import frames
from nlbench.data.places import FolderOptions, Places, TableOptions
from nlbench.errors import DataError, DataMissing, SuiteError


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a table with options as a suite gives them."""

    def call(path, *, label="", clean_label="", test_share=0.0, **table):
        options = FolderOptions(test_share, "", label, clean_label, table=TableOptions(**table))
        places = Places(tmp_path, tmp_path / "cache").reading(path, options)
        return features.load(places, 0)

    return call


def animals(**more):
    """Return a small table with numbers, a category and both sorts of labels."""
    rng = np.random.default_rng(0)
    n = 60
    table = {
        "weight": rng.normal(30, 12, n),
        "legs": rng.integers(2, 5, n),
        "home": rng.choice(["sea", "wood", "house"], n),
        "part": ["test" if i % 4 == 0 else "train" for i in range(n)],
        "species": rng.choice(["cat", "dog", "owl"], n),
    }
    return pd.DataFrame({**table, **more})


def write(table, path):
    """Write a table as the suffix of a path says."""
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        whole = pa.Table.from_pandas(table, preserve_index=False)
        with ipc.new_file(str(path), whole.schema) as file:
            file.write_table(whole)
    return path


# ---- Against scikit-learn ------------------------------------------------------------------------


def test_features_are_those_of_scikit_learn_fitted_on_the_training_rows(read, tmp_path):
    table = animals()
    data = read(
        write(table, tmp_path / "t.csv"), label="species", split="part", categorical=("home",)
    )
    train, test = table[table.part == "train"], table[table.part == "test"]
    scaler = StandardScaler().fit(train[["weight", "legs"]])
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train[["home"]])
    for part, images in ((train, data.train_images), (test, data.test_images)):
        expected = np.hstack(
            [scaler.transform(part[["weight", "legs"]]), encoder.transform(part[["home"]])]
        )
        assert images.shape == (len(part), 5, 1, 1)
        assert images.dtype == np.float32
        np.testing.assert_allclose(images[:, :, 0, 0], expected, rtol=1e-6, atol=1e-6)
    # The mean of all rows would be another one.
    assert abs(scaler.mean_[0] - table.weight.mean()) > 0.05


@pytest.mark.parametrize("missing", ["mean", "median", "most-frequent"])
def test_missing_values_are_filled_as_by_scikit_learn(read, tmp_path, missing):
    table = animals()
    table["legs"] = table["legs"].astype(float)
    table.loc[[1, 2, 8], "legs"] = np.nan
    # Only a test row lacks its weight, which the training rows fill all the same.
    table.loc[[4], "weight"] = np.nan
    data = read(
        write(table, tmp_path / "t.csv"),
        label="species", split="part", features=("weight", "legs"), missing=missing,
    )  # fmt: skip
    columns = ["weight", "legs"]
    train, test = (table[table.part == part][columns] for part in ("train", "test"))
    imputer = SimpleImputer(strategy=missing.replace("-", "_")).fit(train)
    scaler = StandardScaler().fit(imputer.transform(train))
    for part, images in ((train, data.train_images), (test, data.test_images)):
        expected = scaler.transform(imputer.transform(part))
        np.testing.assert_allclose(images[:, :, 0, 0], expected, rtol=1e-6, atol=1e-6)


def test_a_missing_category_becomes_the_most_frequent_one(read, tmp_path):
    table = animals()
    table.loc[[1, 4], "home"] = None
    data = read(
        write(table, tmp_path / "t.csv"), label="species", split="part",
        features=("home",), categorical=("home",), missing="median",
    )  # fmt: skip
    train = table[table.part == "train"]
    most = train.home.value_counts().index[0]
    expected = np.array([home == most for home in sorted(train.home.dropna().unique())])
    assert (data.train_images[0, :, 0, 0] == expected).all()
    assert (data.test_images[1, :, 0, 0] == expected).all()


def test_a_long_table_is_standardised_over_all_of_its_chunks(read, tmp_path):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(9000, 3)) * [1, 100, 1e-3] + [0, 1e6, 5]).astype(np.float32)
    y = rng.integers(0, 2, 9000)
    np.savez(
        tmp_path / "x.npz", X_train=X[:8500], y_train=y[:8500], X_test=X[8500:], y_test=y[8500:]
    )
    data = read(tmp_path / "x.npz")
    expected = StandardScaler().fit(X[:8500].astype(float)).transform(X[8500:].astype(float))
    np.testing.assert_allclose(data.test_images[:, :, 0, 0], expected, rtol=1e-5, atol=1e-5)


def test_an_unknown_category_is_zero_in_all_columns_and_a_warning_names_it(read, tmp_path):
    table = animals()
    table.loc[0, "home"] = "moon"
    data = read(
        write(table, tmp_path / "t.csv"), label="species", split="part", categorical=("home",)
    )
    assert (data.test_images[0, 2:] == 0).all()
    assert any("'home' that no training row has ('moon')" in note for note in data.warnings)


def test_a_constant_column_is_zero_also_where_the_test_rows_differ(read, tmp_path):
    table = animals(same=0.1)
    table.loc[0, "same"] = 7.0
    data = read(
        write(table, tmp_path / "t.csv"), label="species", split="part",
        features=("weight", "same"),
    )  # fmt: skip
    assert (data.train_images[:, 1] == 0).all()
    assert (data.test_images[:, 1] == 0).all()
    assert any("'same' are the same in all training rows" in note for note in data.warnings)


# ---- Forms of files ------------------------------------------------------------------------------


def test_the_same_table_is_one_dataset_in_every_form(read, tmp_path):
    table = animals()
    found = {}
    for suffix in (".csv", ".parquet", ".arrow"):
        path = write(table, tmp_path / f"t{suffix}")
        found[suffix] = read(path, label="species", split="part", categorical=("home",))
    whole = pa.Table.from_pandas(table, preserve_index=False)
    with ipc.new_stream(str(tmp_path / "stream.arrow"), whole.schema) as file:
        file.write_table(whole)
    found["stream"] = read(
        tmp_path / "stream.arrow", label="species", split="part", categorical=("home",)
    )
    arrays = {name: table[name].to_numpy() for name in ("weight", "legs")}
    texts = {name: table[name].to_numpy().astype(str) for name in ("home", "part", "species")}
    np.savez(tmp_path / "t.npz", **arrays, **texts)
    found["npz"] = read(tmp_path / "t.npz", label="species", split="part", categorical=("home",))

    assert len({data.fingerprint for data in found.values()}) == 1
    first = found[".csv"]
    for data in found.values():
        assert data.info.class_names == ("cat", "dog", "owl")
        np.testing.assert_array_equal(data.train_images, first.train_images)
        np.testing.assert_array_equal(data.label_sets["given"], first.label_sets["given"])


def test_a_matrix_is_one_dataset_as_arrays_as_vectors_and_as_columns(read, tmp_path):
    wine = load_wine()
    X, y = wine.data, wine.target
    test = np.arange(len(y)) % 3 == 0
    np.savez(tmp_path / "a.npz", X_train=X[~test], y_train=y[~test], X_test=X[test], y_test=y[test])
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, part in (("train", ~test), ("test", test)):
        np.save(folder / f"{name}_features.npy", X[part])
        np.save(folder / f"{name}_labels.npy", y[part])
    split = np.where(test, "test", "train")
    vectors = pa.table({"x": list(X), "label": y, "split": split, "file": ["a.jpg"] * len(y)})
    pq.write_table(vectors, tmp_path / "v.parquet")
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    table = pa.table({"x": fixed, "label": y, "split": split})
    with ipc.new_file(str(tmp_path / "f.arrow"), table.schema) as file:
        file.write_table(table)
    columns = pd.DataFrame(X, columns=wine.feature_names).assign(label=y, split=split)
    columns.to_csv(tmp_path / "c.csv", index=False)

    found = [
        read(tmp_path / "a.npz"),
        read(folder),
        read(folder / "train_features.npy"),
        read(tmp_path / "v.parquet", split="split"),
        read(tmp_path / "f.arrow", split="split"),
        read(tmp_path / "c.csv", split="split"),
    ]
    assert len({data.fingerprint for data in found}) == 1
    assert {data.info.shape for data in found} == {(13, 1, 1)}
    assert found[0].info.class_names == ("0", "1", "2")
    assert any("not read beside 'x': 'file'" in note for note in found[3].warnings)


def test_the_names_of_hugging_faces_classes_are_those_of_the_file(read, tmp_path):
    features_of = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": str({"info": {"features": features_of}}).replace("'", '"').encode()}
    table = pa.table({"x": [[float(i), 1.0] for i in range(10)], "label": [1, 0] * 5})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
    data = read(tmp_path / "t.parquet", test_share=0.4)
    assert data.info.class_names == ("no", "yes")


NAMES = ["owl", "crow", "finch"]


def write_named(path, labels, **more):
    """Write features with labels whose numbers have names, as NumPy or Hugging Face does."""
    x = np.random.default_rng(0).normal(size=(len(labels), 2))
    if path.suffix == ".npz":
        np.savez(path, X=x, labels=labels, class_names=NAMES, **more)
        return path
    metadata = {"info": {"features": {"labels": {"names": NAMES, "_type": "ClassLabel"}}}}
    table = pa.table({"X": list(x), "labels": labels, **more})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(metadata)}), path)
    return path


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_classes_have_the_numbers_that_the_file_gives_them(read, tmp_path, form):
    labels = np.arange(30) % 3
    split = ["test"] * 15 + ["train"] * 15
    path = write_named(tmp_path / f"t.{form}", labels, part=split, noisy=(labels + 1) % 3)
    data = read(path, label="labels", label_sets=(("noisy", "noisy"),), split="part")
    assert data.info.class_names == tuple(NAMES)
    assert data.label_sets["given"].tolist() == labels[15:].tolist()
    assert data.test_labels.tolist() == labels[:15].tolist()
    # The numbers of a further column have the same names.
    assert data.label_sets["noisy"].tolist() == ((labels[15:] + 1) % 3).tolist()


def test_a_number_without_a_name_is_refused_and_a_name_without_rows_is_told(read, tmp_path):
    path = write_named(tmp_path / "t.npz", np.arange(40) % 4)
    with pytest.raises(DataError, match=r"row 3: 'labels' is 3, and the file names 3 classes, fro"):
        read(path, test_share=0.5)
    data = read(write_named(tmp_path / "u.npz", np.arange(40) % 2), test_share=0.5)
    assert data.info.class_names == tuple(NAMES)
    for part in ("training", "test"):
        assert any(f"no {part} row has the class finch" in note for note in data.warnings)


def test_two_classes_of_one_name_are_refused(read, tmp_path):
    np.savez(tmp_path / "t.npz", X=X, y=[0, 1, 0, 1, 0], class_names=["a", "a"])
    with pytest.raises(DataError, match="two classes have the name 'a'; rename one"):
        read(tmp_path / "t.npz", test_share=0.4)


def test_parts_may_be_two_files_of_a_folder(read, tmp_path):
    table = animals().drop(columns="part")
    folder = tmp_path / "f"
    folder.mkdir()
    table[:45].to_csv(folder / "train.csv", index=False)
    table[45:].to_csv(folder / "test.csv", index=False)
    data = read(folder, label="species", categorical=("home",))
    assert (data.info.num_train, data.info.num_test) == (45, 15)
    assert data.info.name == "features:f"


def test_arrays_of_files_are_mapped_and_so_is_what_runs_share(read, tmp_path):
    X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float16)
    np.save(tmp_path / "emb.npy", X)
    np.save(tmp_path / "labels.npy", np.arange(30) % 3)
    (frame,) = frames.read_parts(tmp_path / "emb.npy").values()
    assert isinstance(frame.columns["emb"], np.memmap)
    data = read(tmp_path / "emb.npy", features=("emb",), label="labels", test_share=0.2)
    assert isinstance(data.train_images, np.memmap)
    assert not data.train_images.flags.writeable

    # A change of the labels, which lie beside the features, is noticed.
    np.save(tmp_path / "labels.npy", np.arange(30) % 2)
    again = read(tmp_path / "emb.npy", features=("emb",), label="labels", test_share=0.2)
    assert again.info.num_classes == 2


# ---- Columns, parts and labels -------------------------------------------------------------------


def test_patterns_choose_columns_and_leave_them_out(read, tmp_path):
    table = animals(c1=1.0, c2=np.arange(60) ** 2, other=np.arange(60) ** 0.5)
    path = write(table, tmp_path / "t.csv")
    one = read(path, label="species", split="part", features=("c*", "legs"))
    assert one.info.shape == (3, 1, 1)
    other = read(path, label="species", split="part", features=("!home", "!c*"))
    assert other.info.shape == (3, 1, 1)


def test_an_index_is_no_feature(read, tmp_path):
    table = animals().drop(columns=["home"])
    table.to_csv(tmp_path / "t.csv")
    data = read(tmp_path / "t.csv", label="species", split="part")
    assert data.info.shape == (2, 1, 1)
    assert any("'' numbers the rows, and is not read" in note for note in data.warnings)


def test_test_share_draws_the_same_rows_each_time_and_keeps_twins_together(read, tmp_path):
    table = animals().drop(columns="part")
    doubled = pd.concat([table, table])
    path = write(doubled, tmp_path / "t.csv")
    data = read(path, label="species", test_share=0.3, categorical=("home",))
    again = read(path, label="species", test_share=0.3, categorical=("home",))
    assert data.fingerprint == again.fingerprint
    train = {row.tobytes() for row in np.asarray(data.train_images)}
    assert not any(row.tobytes() in train for row in np.asarray(data.test_images))
    assert any("labels may be as wrong" in note for note in data.warnings)


def test_test_rows_that_equal_training_rows_are_named(read, tmp_path):
    table = animals()
    table.loc[0, ["weight", "legs", "home"]] = table.loc[1, ["weight", "legs", "home"]]
    data = read(
        write(table, tmp_path / "t.csv"), label="species", split="part", categorical=("home",)
    )
    assert any("1 of 15 test rows have the features of a training row" in n for n in data.warnings)


def test_a_column_of_yes_and_no_parts_the_rows(read, tmp_path):
    table = animals(is_test=[i % 4 == 0 for i in range(60)]).drop(columns="part")
    data = read(
        write(table, tmp_path / "t.csv"), label="species", split="is_test", categorical=("home",)
    )
    assert data.info.num_test == 15


def test_rows_for_validation_are_left_out_with_a_warning(read, tmp_path):
    table = animals()
    table.loc[table.index % 4 == 1, "part"] = "val"
    data = read(
        write(table, tmp_path / "t.csv"), label="species", split="part", categorical=("home",)
    )
    assert (data.info.num_train, data.info.num_test) == (30, 15)
    assert any("15 rows of the part val are not read" in note for note in data.warnings)


def test_label_sets_have_columns_of_their_own(read, tmp_path):
    table = animals(worst=["cat", "dog"] * 30)
    path = write(table, tmp_path / "t.csv")
    more = {"split": "part", "categorical": ("home",)}
    data = read(path, clean_label="species", label_sets=(("worst", "worst"),), **more)
    assert data.info.label_sets == ("worst", "clean")
    # The test labels are the true ones.
    test = table[table.part == "test"].species
    assert [data.info.class_names[i] for i in data.test_labels] == list(test)
    all_true = read(path, clean_label="species", features=("weight",), split="part")
    assert all_true.info.label_sets == ("clean",)


def test_true_labels_may_be_known_for_some_rows(read, tmp_path):
    table = animals(given=["cat", "dog"] * 30)
    table.loc[1:30:2, "species"] = None
    table["part"] = ["test" if i > 44 else "train" for i in range(60)]
    data = read(
        write(table, tmp_path / "t.csv"), label="given", clean_label="species", split="part",
        categorical=("home",),
    )  # fmt: skip
    assert data.info.label_sets == ("given",)
    assert data.info.partly_clean
    assert (data.partly_clean == -1).sum() == 15


def test_an_empty_column_of_true_labels_is_none(read, tmp_path):
    table = animals(clean_label=None)
    data = read(
        write(table, tmp_path / "t.csv"), label="species", split="part", categorical=("home",)
    )
    assert data.info.label_sets == ("given",)
    assert data.partly_clean is None


def test_classes_that_look_like_one_are_named_in_a_warning(read, tmp_path):
    table = animals()
    table.loc[1, "species"] = "Cat"
    data = read(write(table, tmp_path / "t.csv"), **MORE)
    assert any("'Cat' and 'cat' are two classes; is one misspelt?" in n for n in data.warnings)


def test_labels_that_the_test_part_lacks_are_named_with_the_fix(read, tmp_path):
    y = np.arange(30) % 2
    np.savez(
        tmp_path / "s.npz", train_features=X.repeat(6, 0), train_label_given=y, train_labels=y,
        test_features=X.repeat(6, 0), test_labels=y,
    )  # fmt: skip
    with pytest.raises(DataError) as caught:
        read(tmp_path / "s.npz", label_sets=(("given", "label_given"),), features=("features",))
    assert "its test part has none of the columns of labels 'label_given'" in str(caught.value)
    assert "only 'labels'; `label:` or `clean_label:` names the column" in str(caught.value)


def test_the_classes_minus_one_and_one_are_classes(read, tmp_path):
    table = animals(sign=np.where(np.arange(60) % 3, -1, 1)).drop(columns=["species", "home"])
    data = read(write(table, tmp_path / "t.csv"), label="sign", split="part")
    assert data.info.class_names == ("-1", "1")


def test_the_fingerprint_changes_with_values_labels_and_options(read, tmp_path):
    table = animals()
    table["legs"] = table["legs"].astype(float)
    table.loc[1, "legs"] = np.nan
    more = {"label": "species", "split": "part", "features": ("weight", "legs")}
    seen = set()
    for missing in ("mean", "median"):
        seen.add(read(write(table, tmp_path / "a.csv"), missing=missing, **more).fingerprint)
    table.loc[2, "weight"] += 1e-9
    seen.add(read(write(table, tmp_path / "b.csv"), missing="mean", **more).fingerprint)
    table.loc[0, "species"] = "owl" if table.species[0] != "owl" else "cat"
    seen.add(read(write(table, tmp_path / "c.csv"), missing="mean", **more).fingerprint)
    assert len(seen) == 4


FIXED = pd.DataFrame(
    {
        "x": [1.0, 2.0, 4.0, 8.0, 16.0],
        "home": ["sea", "wood", "sea", "house", "wood"],
        "part": ["train", "train", "train", "train", "test"],
        "label": ["a", "b", "a", "b", "a"],
    }
)


def read_fixed(read, path):
    return read(write(FIXED, path), label="label", split="part", categorical=("home",))


def test_the_fingerprint_of_a_table_stays_with_the_numbers_that_it_becomes(read, tmp_path):
    """Ask for another `feature_matrix.VERSION` where these numbers change."""
    data = read_fixed(read, tmp_path / "t.csv")
    scale = np.sqrt(7.1875)
    expected = [
        [-2.75 / scale, 0, 1, 0],
        [-1.75 / scale, 0, 0, 1],
        [0.25 / scale, 0, 1, 0],
        [4.25 / scale, 1, 0, 0],
        [12.25 / scale, 0, 0, 1],
    ]
    found = np.concatenate([data.train_images, data.test_images])[..., 0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert data.fingerprint == "458e7ab27ec34a62"


def test_another_version_of_the_numbers_has_another_fingerprint_and_copy(
    read, tmp_path, monkeypatch
):
    first = read_fixed(read, tmp_path / "t.csv").fingerprint
    copies = len(list((tmp_path / "cache").iterdir()))
    monkeypatch.setattr(feature_matrix, "VERSION", 2)
    features._read.cache_clear()
    assert read_fixed(read, tmp_path / "t.csv").fingerprint != first
    assert len(list((tmp_path / "cache").iterdir())) == 2 * copies


# ---- What is refused -----------------------------------------------------------------------------

MORE = {"label": "species", "split": "part", "categorical": ("home",)}


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"weight": [np.nan, *range(59)]}, MORE, "'weight' 1 (the first at {path}:2). Fill them"),
        ({"weight": [np.inf, *range(59)]}, MORE, "{path}:2: 'weight' is infinite"),
        ({"species": "cat"}, MORE, "holds one class, cat; at least two"),
        ({"species": [None, *["cat", "dog"] * 29, "cat"]}, MORE, "{path}:2: species is empty"),
        ({"species": np.arange(60) / 7}, MORE, "A label must be a class, a whole number or a text"),
        ({"name": [f"n{i}" for i in range(60)]}, MORE, "'name' (such as 'n0') holds text"),
        ({"price": [f"{i},5" for i in range(60)]}, MORE, "write 1.5 and not 1,5"),
        ({}, {**MORE, "categorical": ()}, "`categorical: [home]`; if not, leave it out"),
        ({}, {**MORE, "features": ("weigt",)}, "Did you mean 'weight'?"),
        ({}, {**MORE, "features": ("species",)}, "'species' holds labels or parts"),
        ({}, {**MORE, "categorical": ("hom",)}, "`categorical` names 'hom'"),
        ({}, {**MORE, "label": "specis"}, "`label` names 'specis', and there is no such column"),
        (
            {},
            {"label": "species", "split": "home", "features": ("weight",)},
            "a row is of the part train, test or val",
        ),
        ({}, {**MORE, "split": "prt"}, "`split` names 'prt'"),
        ({}, {**MORE, "split": ""}, "('test', 'train'). If it does, write `split: part`"),
        ({}, {**MORE, "test_share": 0.2}, "`split` and `test_share` both"),
        ({}, {**MORE, "clean_label": "species"}, "'species' is named for given and for clean"),
        ({"true_label": 1, "gt": 2}, MORE, "'true_label' may hold labels, by its name"),
        (
            {"ticket": [f"t{i}" for i in range(60)]},
            {**MORE, "categorical": ("home", "ticket")},
            "'ticket' has 45 categories for 45 training rows",
        ),
        ({"part": "train"}, MORE, "there are no test rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_fix(read, tmp_path, change, options, words):
    path = write(animals(**change), tmp_path / "t.csv")
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert words.replace("{path}", str(path)) in str(caught.value)


def test_a_copy_of_the_labels_is_no_feature_unless_it_is_named(read, tmp_path):
    table = animals()
    table["kind"] = table.species.map({"cat": 3, "dog": 1, "owl": 7})
    # A twentieth may differ, and cells may be empty.
    table.loc[[1], "kind"] = table.kind[2]
    table.loc[[5], "kind"] = np.nan
    more = {**MORE, "missing": "median"}
    with pytest.raises(DataError) as caught:
        read(write(table, tmp_path / "t.csv"), **more)
    assert "the column 'kind' has a value for each class, so it may" in str(caught.value)
    assert "as `features: ['!kind']` does" in str(caught.value)
    assert "name it: `features: ['*', kind]`" in str(caught.value)
    assert read(tmp_path / "t.csv", features=("*", "kind"), **more).info.shape == (6, 1, 1)
    assert read(tmp_path / "t.csv", features=("!kind",), **more).info.shape == (5, 1, 1)

    # So is one of categories, which must be named in any case, and one of the true labels.
    table = animals(given=["cat", "dog", "owl"] * 20, art=animals().species + "s")
    more = {**MORE, "clean_label": "species", "label": "given", "categorical": ("home", "art")}
    with pytest.raises(DataError, match="'art' has a value for each class"):
        read(write(table, tmp_path / "u.csv"), **more)


def test_a_column_that_only_goes_with_the_labels_is_a_feature(read, tmp_path):
    rng = np.random.default_rng(0)
    rare = np.arange(200) % 20 == 1
    table = pd.DataFrame({"size": rng.normal(size=200), "label": np.where(rare, "sick", "well")})
    # On 97% of the rows it says "sick" where the label does, but not for most of the sick.
    table["fever"] = (np.arange(200) % 60 == 1) | (np.arange(200) == 3)
    table["one"] = 1
    assert read(write(table, tmp_path / "t.csv"), test_share=0.2).info.shape == (3, 1, 1)
    # Ten rows of two classes agree with some columns by chance.
    few = animals(two=np.arange(60) % 2, label=["a", "b"] * 30)[:24].drop(columns="species")
    path = write(few, tmp_path / "u.csv")
    assert read(path, split="part", categorical=("home",)).info.num_train == 18


def test_labels_of_annotators_are_no_features_by_their_names(read, tmp_path):
    table = animals(annotator1=np.arange(60) % 7, annotatorB=np.arange(60) % 5)
    path = write(table, tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"'annotator1' may hold labels, by its name"):
        read(path, **MORE)
    assert read(path, features=("!annotator*",), **MORE).info.shape == (5, 1, 1)


def test_numbers_of_rows_may_have_gaps(read, tmp_path):
    table = animals(id=np.arange(60) * 2 + 5, height_id=np.arange(60) / 2)
    data = read(write(table, tmp_path / "t.csv"), **MORE)
    assert any("the column 'id' numbers the rows, and is not read" in n for n in data.warnings)
    assert data.info.shape == (6, 1, 1)
    # Downwards, and of eight bits without a sign, where a difference would be positive.
    np.savez(tmp_path / "t.npz", id=np.arange(30, 0, -1).astype(np.uint8), a=X.repeat(6, 0)[:, 0],
             y=np.arange(30) % 2)  # fmt: skip
    assert read(tmp_path / "t.npz", test_share=0.4).info.shape == (2, 1, 1)


def test_dates_of_a_parquet_file_are_left_out_with_a_warning(read, tmp_path):
    table = animals(when=pd.date_range("2020-01-01", periods=60))
    table["lasted"] = table.when - table.when[0]
    path = write(table, tmp_path / "t.parquet")
    data = read(path, **MORE)
    assert data.info.shape == (5, 1, 1)
    (note,) = [note for note in data.warnings if "neither numbers nor texts" in note]
    assert "'when' (timestamp[" in note
    assert "'lasted' (duration[" in note
    # What is left out on purpose is not named.
    data = read(path, features=("!when", "!lasted"), **MORE)
    assert not any("neither numbers" in note for note in data.warnings)
    with pytest.raises(DataError, match="`features` names 'when', which holds timestamp"):
        read(path, features=("weight", "when"), **MORE)


def test_two_columns_of_one_name_are_refused(read, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,a,label\n1,2,x\n3,4,y\n")
    with pytest.raises(DataError, match=r"t\.csv:1: two columns are called 'a'; rename one"):
        read(path, test_share=0.5)


def test_a_class_that_only_test_rows_have_is_refused(read, tmp_path):
    table = animals()
    table.loc[4, "species"] = "cow"
    path = write(table, tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"t\.csv:6: no training row has the class 'cow'"):
        read(path, **MORE)


X = np.zeros((5, 2))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": X, "y": np.arange(4)}, "'X' has 5 rows, and 'y' has 4"),
        ({"X": X, "Z": X, "y": np.arange(5)}, "'X', 'Z' are matrices"),
        ({"X": X}, "has no column 'label'"),
        ({"X": X.astype(complex), "y": np.arange(5)}, "holds complex128, and no numbers"),
        ({"X": np.array([{}] * 5), "y": np.arange(5)}, "holds Python objects"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(read, tmp_path, arrays, words):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=words):
        read(tmp_path / "t.npz", test_share=0.4)


def test_lists_of_different_lengths_are_refused(read, tmp_path):
    pq.write_table(pa.table({"x": [[1.0], [1.0, 2.0]], "label": [0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"'x' holds lists of different lengths \(1, 2\)"):
        read(tmp_path / "t.parquet", test_share=0.5)


def test_a_file_that_is_not_there_or_has_no_test_part_says_what_to_do(read, tmp_path):
    with pytest.raises(DataMissing, match="no such file") as refusal:
        read(tmp_path / "no.csv")
    assert f"`nlbench embed DATASET --to {tmp_path / 'no.csv'}` makes" in str(refusal.value)
    path = write(animals().drop(columns=["part", "home"]), tmp_path / "t.csv")
    with pytest.raises(DataMissing, match=r"has no test part; `test_share: 0\.2`"):
        read(path, label="species")
    (tmp_path / "t.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"must be one of \.csv"):
        read(tmp_path / "t.xlsx")


def test_damaged_files_are_refused(read, tmp_path):
    for name in ("a.parquet", "a.arrow", "a.npz", "a.csv"):
        path = tmp_path / name
        path.write_bytes(b"\x00\x01nothing")
        with pytest.raises(DataError, match=name):
            read(path, test_share=0.2)


# ---- In a suite ----------------------------------------------------------------------------------


@pytest.fixture
def suite(tmp_path):
    cancer = load_breast_cancer(as_frame=True)
    cancer.frame.to_csv(tmp_path / "cancer.csv", index=False)
    entry = {"name": "features", "path": str(tmp_path / "cancer.csv"), "clean_label": "target"}
    return {
        "name": "own",
        "protocol": "tabular",
        "datasets": [{**entry, "test_share": 0.2, "noise": {"kind": "symmetric", "rate": 0.4}}],
        "methods": {"ce": {}},
        "seeds": [0],
    }


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))


def test_a_suite_trains_on_a_table(suite, tmp_path):
    suite["methods"] = {"ce": {}, "elr": {}}
    del suite["datasets"][0]["noise"]
    frame = nlbench.run(suite, out=tmp_path / "out", overrides={"epochs": 3})
    assert list(frame["status"]) == ["done", "done"]
    assert list(frame["dataset"]) == ["features:cancer.csv"] * 2
    # With features that were not standardised, or rows in another order than their labels, it
    # would be about 63%, the share of the larger class.
    assert (frame["last"] > 0.9).all()


def test_a_table_says_once_how_large_the_classes_are_over_all_seeds(suite, tmp_path):
    load_wine(as_frame=True).frame.to_csv(tmp_path / "wine.csv", index=False)
    suite["datasets"][0]["path"] = str(tmp_path / "wine.csv")
    suite["seeds"] = [0, 1, 2]
    nlbench.run(suite, out=tmp_path / "out", overrides={"epochs": 1})
    sizes = []
    for file in (tmp_path / "out" / "runs").glob("*/record.json"):
        sizes += json.loads(file.read_text())["classes"]["train"]
    # Each seed has draws of its own.
    assert len(set(sizes)) > 3
    text = " ".join(CliRunner().invoke(app, ["table", str(tmp_path / "out")]).stdout.split())
    assert text.count("3 classes (0, 1, 2)") == 1
    assert f"each with {min(sizes)} to {max(sizes)} training and 10 to 14 test examples" in text


def test_a_method_that_needs_views_of_images_says_why_it_is_refused(suite, tmp_path):
    suite["methods"] = {"promix": {}, "dividemix": {}, "ssr": {}}
    with pytest.raises(SuiteError) as caught:
        nlbench.run(suite, out=tmp_path / "out")
    text = str(caught.value)
    assert "methods.promix: promix learns from strong views of images, and cancer holds" in text
    assert "methods.ssr" in text
    assert "dividemix" not in text


@pytest.mark.methods
def test_every_other_method_trains_on_a_table(suite, tmp_path):
    refused = {"disc", "gjs", "pls", "promix", "sop-plus", "ssr", "unicon"}
    suite["methods"] = {name: {} for name in registry.method_files() if name not in refused}
    frame = nlbench.run(suite, out=tmp_path / "out", overrides={"epochs": 3})
    assert len(frame) > 40
    assert set(frame["status"]) == {"done"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clean_val": "val"}, "clean_val: only a folder of images takes it"),
        ({"label": "a", "label_column": "b"}, "label: is the same as label_column"),
        ({"labels": {"clean": "x"}}, "labels: the column of the true labels is named by"),
        ({"missing": "zero"}, "missing"),
        ({"labels": {"worst": 3}}, "labels.worst: must be text"),
        ({"labels": {}}, "labels: must not be empty"),
        (
            {"label_sets_in": {"worst": "x"}},
            "label_sets_in: unknown key. It takes: name, path, labels, noise",
        ),
        ({"path": ""}, "features needs a path, the file of the table"),
    ],
)
def test_wrong_keys_of_a_table_are_refused(suite, change, words):
    suite["datasets"][0] |= change
    with pytest.raises(SuiteError, match=words):
        nlbench.run(suite, out="unused")


def test_keys_of_a_table_are_refused_elsewhere(suite):
    suite["datasets"] = [{"name": "digits", "features": ["a"]}]
    with pytest.raises(SuiteError, match="features: only the dataset features or hf takes it"):
        nlbench.run(suite, out="unused")


def test_two_entries_of_one_table_must_read_the_same_columns(suite):
    entry = suite["datasets"][0]
    suite["datasets"] = [entry, {**entry, "features": ["mean*"]}]
    with pytest.raises(SuiteError, match=r"features: is \[\] in an entry above"):
        nlbench.run(suite, out="unused")


def test_data_check_reports_on_a_table(suite, tmp_path):
    path = suite["datasets"][0]["path"]
    done = CliRunner().invoke(app, ["data", "check", path, "--clean-label", "target"])
    assert done.exit_code == 0, done.output
    assert "no test part: `test_share: 0.2`" in done.output
    assert "cancer: 2 classes (0, 1); 455 training examples" in done.output
    assert "features: 30, of which 0 are the same in all training rows" in done.output

    (tmp_path / "bad.csv").write_text("a,label\nx,1\ny,2\n")
    done = CliRunner().invoke(app, ["data", "check", str(tmp_path / "bad.csv")])
    assert done.exit_code == 1
    assert "cannot be used as it is" in done.output
    assert "holds text" in done.output


def test_a_table_of_texts_is_sent_to_the_dataset_of_texts(tmp_path):
    rows = [f"the film number {i} was {'good' if i % 2 else 'bad'},{i % 2}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["said,label", *rows]))
    done = CliRunner().invoke(app, ["data", "check", str(tmp_path / "t.csv")])
    assert done.exit_code == 1
    assert "'said' holds texts (such as 'the film number 0 was bad')" in done.output
    assert "use the dataset text: `{name: text, path: t.csv, text: said}`" in done.output
    assert "categorical" not in done.output


def test_the_registry_has_the_dataset():
    assert catalogue.dataset("features:any.csv").INFO.located_by == "suite"
