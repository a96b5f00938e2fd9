"""Datasets of the Hugging Face hub: the real client against a hub on this machine."""

from pathlib import Path

import fake_hub
import huggingface_hub
import numpy as np
import pytest
from fake_hub import parquet, pictures
from huggingface_hub import constants

from nlbench.data import hub
from nlbench.data.datasets import hf
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing, SuiteError
from nlbench.plan.expand import expand
from nlbench.plan.suite_file import read_suite

NAMES = ["zebra", "ant", "cow"]
TRAIN = [0, 1, 2] * 4
TEST = [0, 1, 2]
FILMS = ["a good film", "a bad film", "a good play", "a bad play", "a good book", "a bad book"]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Run a hub, and let the client ask it and nothing else."""
    with fake_hub.serving() as found:
        fake_hub.use(found, monkeypatch, tmp_path / "hf")
        yield found


@pytest.fixture
def birds(server):
    """Return a repository with two files of training images and one of test images."""
    repository = server.repository("ann/birds")
    repository.commit(files_of())
    return repository


def files_of(seed=0, names=NAMES, test=TEST):
    """Return the files of a dataset as `push_to_hub` names them."""
    files = {"README.md": b"birds", "birds.py": b"raise SystemExit"}
    for i, labels in enumerate((TRAIN[:6], TRAIN[6:])):
        columns = {"image": pictures(labels, seed + i), "label": labels}
        files[f"data/train-{i:05}-of-00002.parquet"] = parquet(columns, {"label": names})
    columns = {"image": pictures(test, seed + 9), "label": test}
    files["data/test-00000-of-00001.parquet"] = parquet(columns, {"label": names})
    return files


def load(tmp_path, path="ann/birds", **options):
    """Read a dataset of the hub."""
    return hf.load(Places(Path(path), tmp_path / "cache", **options), 0)


def planned(tmp_path, monkeypatch, **entry):
    """Return the plan of a suite with one entry for the hub."""
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    text = {
        "name": "x",
        "protocol": "images-32",
        "datasets": [{"name": "hf", "path": "ann/birds", **entry}],
        "methods": {"ce": {}},
        "seeds": [0],
        "overrides": {"model": "cnn3", "epochs": 1},
    }
    suite, problems = read_suite(text)
    return expand(suite, problems, places=Places.of_user(tmp_path / "data"))


# ---- What is read --------------------------------------------------------------------------------


def test_images_labels_and_names_of_classes_are_those_of_the_hub(birds, tmp_path):
    data = load(tmp_path)
    assert data.info.name == "hf:ann/birds"
    assert data.info.commit == birds.refs["main"]
    # In the hub's order, which is not that of the alphabet.
    assert data.info.class_names == tuple(NAMES)
    assert data.label_sets["given"].tolist() == TRAIN
    assert data.test_labels.tolist() == TEST
    assert [data.train_images.path(i) for i in range(12)]
    assert (tmp_path / "hf").is_dir()


def test_only_parquet_files_are_downloaded(birds, server, tmp_path):
    load(tmp_path)
    assert len(server.downloads()) == 3
    assert all(line.endswith(".parquet") for line in server.downloads())


def test_nothing_is_downloaded_twice(birds, server, tmp_path):
    load(tmp_path)
    server.requests.clear()
    load(tmp_path)
    assert server.requests == ["GET /api/datasets/ann/birds"]


def test_a_known_commit_needs_no_network(birds, server, tmp_path):
    first = load(tmp_path)
    server.requests.clear()
    again = load(tmp_path, revision=birds.refs["main"])
    assert server.requests == []
    assert again.fingerprint == first.fingerprint


def test_columns_are_named_by_keys(server, tmp_path):
    files = {}
    for split, labels in (("train", TRAIN), ("test", TEST)):
        wrong = [(label + 1) % 3 for label in labels]
        columns = {"photo": pictures(labels), "thumb": pictures(labels, 1)}
        columns |= {"coarse": [0] * len(labels), "worker": wrong, "expert": labels}
        files[f"{split}-00000-of-00001.parquet"] = parquet(columns, {"worker": NAMES})
    server.repository("ann/birds").commit(files)

    with pytest.raises(DataError, match=r"needs a column image .*`image: NAME`"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"no column 'foto'.* Did you mean 'photo'\?"):
        load(tmp_path, image_column="foto")
    columns = {"label_column": "worker", "clean_column": "expert"}
    data = load(tmp_path, image_column="photo", **columns)
    assert data.label_sets["clean"].tolist() == TRAIN
    assert data.label_sets["given"].tolist() == [(label + 1) % 3 for label in TRAIN]
    assert data.test_labels.tolist() == TEST
    other = load(tmp_path, image_column="thumb", **columns)
    assert other.fingerprint != data.fingerprint


def test_configurations_and_splits_are_chosen(server, tmp_path):
    files = {}
    for config, seed in (("small", 0), ("large", 5)):
        for split, labels in (("train", TRAIN), ("validation", TEST)):
            columns = {"img": pictures(labels, seed), "label": labels}
            files[f"{config}/{split}-00000-of-00001.parquet"] = parquet(columns)
    server.repository("ann/birds").commit(files)

    with pytest.raises(DataError, match=r"has 2 configurations, large, small; .*`config: large`"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"no configuration 'smal'.* Did you mean 'small'\?"):
        load(tmp_path, config="smal")
    with pytest.raises(DataError, match=r"no split 'test'.*`test_split: validation`"):
        load(tmp_path, config="small")
    with pytest.raises(DataError, match="split and test_split are both 'train'"):
        load(tmp_path, config="small", test_split="train")
    data = load(tmp_path, config="small", test_split="validation")
    assert (data.info.num_train, data.info.num_test) == (12, 3)
    assert load(tmp_path, config="small", test_share=0.25).info.num_test == 3


def test_a_validation_split_with_true_labels(birds, tmp_path):
    files = files_of()
    columns = {"image": pictures(TEST, 20), "label": TEST}
    files["data/validation-00000-of-00001.parquet"] = parquet(columns, {"label": NAMES})
    birds.commit(files)
    assert load(tmp_path, clean_val="validation").scored["clean_val"][1].tolist() == TEST


def test_the_files_that_the_hub_converts_are_read(server, tmp_path):
    repository = server.repository("ann/birds")
    repository.commit({"birds.py": b"raise SystemExit", "birds.zip": b"zip"})
    with pytest.raises(DataError, match=r"no parquet files.*never executed.*`folder`"):
        load(tmp_path)

    files = {}
    for name, labels in (("train/0000", TRAIN[:6]), ("train/0001", TRAIN[6:]), ("test/0000", TEST)):
        columns = {"image": pictures(labels, len(files)), "label": labels}
        files[f"plain/{name}.parquet"] = parquet(columns, {"label": NAMES})
    commit = repository.commit(files, "refs/convert/parquet")
    data = load(tmp_path)
    assert data.info.commit == commit
    assert data.label_sets["given"].tolist() == TRAIN
    with pytest.raises(DataError, match=r"no parquet files.*`revision: refs/convert/parquet`"):
        load(tmp_path, revision="main")


def test_a_converted_beginning_is_refused(server, tmp_path):
    columns = {"image": pictures(TRAIN), "label": TRAIN}
    files = {"default/partial-train/0000.parquet": parquet(columns)}
    server.repository("ann/birds").commit(files, "refs/convert/parquet")
    with pytest.raises(DataError, match="only the beginning of the split 'train'"):
        load(tmp_path, revision="refs/convert/parquet")


def test_hidden_labels_are_refused(birds, tmp_path):
    birds.commit(files_of(test=[-1, -1, -1]))
    with pytest.raises(DataError, match=r"3 of the labels of the split 'test' are -1.*test_split"):
        load(tmp_path)


def test_accents_of_names_are_composed(birds, tmp_path):
    # The accent is a character of its own.
    birds.commit(files_of(names=["zebra", "cafe\u0301", "cow"]))
    assert load(tmp_path).info.class_names == ("zebra", "caf\u00e9", "cow")


def test_parts_that_name_other_classes_are_refused(birds, tmp_path):
    files = files_of()
    columns = {"image": pictures(TEST, 9), "label": TEST}
    files["data/test-00000-of-00001.parquet"] = parquet(columns, {"label": sorted(NAMES)})
    birds.commit(files)
    with pytest.raises(DataError, match=r"names the classes ant, cow, zebra, and .* zebra"):
        load(tmp_path)


def test_texts_are_read_as_those_of_a_suite(server, tmp_path):
    files = {}
    for split, texts in (("train", FILMS), ("test", ["good", "bad"])):
        labels = [1, 0] * (len(texts) // 2)
        shards = [(texts, labels)]
        if split == "train":
            shards = [(texts[:2], labels[:2]), (texts[2:], labels[2:])]
        for i, (part, given) in enumerate(shards):
            name = f"plain/{split}-{i:05}-of-{len(shards):05}.parquet"
            files[name] = parquet({"text": part, "label": given}, {"label": ["neg", "pos"]})
    commit = server.repository("ann/films").commit(files)

    data = load(tmp_path, "ann/films")
    assert (data.info.name, data.info.commit) == ("hf:ann/films", commit)
    assert data.info.class_names == ("neg", "pos")
    assert data.label_sets["given"].tolist() == [1, 0] * 3
    assert data.test_labels.tolist() == [1, 0]
    assert data.info.vocabulary > 0
    # The first words of both kinds of text are the same one, and the second ones differ.
    assert data.train_images[0, 0] == data.train_images[1, 0]
    assert data.train_images[0, 1] != data.train_images[1, 1]

    shared = load(tmp_path, "ann/films", test_share=0.34, length=2)
    assert shared.info.num_test == 2
    assert shared.train_images.shape[1] == 2
    files["plain/val-00000-of-00001.parquet"] = files["plain/test-00000-of-00001.parquet"]
    server.repository("ann/films").commit(files)
    with pytest.raises(DataError, match="clean_val is for images"):
        load(tmp_path, "ann/films", clean_val="val")


def test_hidden_labels_of_texts_are_refused(server, tmp_path):
    files = {}
    for split, labels in (("train", [0, 1]), ("test", [-1, -1])):
        content = parquet({"text": ["good", "bad"], "label": labels})
        files[f"{split}-00000-of-00001.parquet"] = content
    server.repository("ann/films").commit(files)
    with pytest.raises(DataError, match=r"2 of the labels of the split 'test' are -1"):
        load(tmp_path, "ann/films")


def test_vectors_are_read_as_those_of_a_suite(server, tmp_path):
    files = {}
    for split, count in (("train", 6), ("test", 2)):
        vectors = [[float(i), float(i % 2)] for i in range(count)]
        columns = {"emb": vectors, "label": [i % 2 for i in range(count)]}
        files[f"{split}-00000-of-00001.parquet"] = parquet(columns, {"label": ["no", "yes"]})
    commit = server.repository("ann/vectors").commit(files)
    data = load(tmp_path, "ann/vectors")
    assert (data.info.name, data.info.commit) == ("hf:ann/vectors", commit)
    assert data.info.shape == (2, 1, 1)
    assert data.label_sets["given"].tolist() == [0, 1] * 3
    np.testing.assert_allclose(data.train_images[:, 1, 0, 0], [-1, 1] * 3, atol=1e-6)


def test_columns_that_do_not_tell_what_they_hold(server, tmp_path):
    content = parquet({"story": ["good", "bad"], "label": [0, 1]})
    files = {"train-00000-of-00001.parquet": content, "test-00000-of-00001.parquet": content}
    server.repository("ann/words").commit(files)
    with pytest.raises(DataError, match=r"has the columns story, label, .*`text: NAME`"):
        load(tmp_path, "ann/words")
    assert load(tmp_path, "ann/words", text="story").info.num_train == 2


# ---- Commits and keys ----------------------------------------------------------------------------


def test_a_moved_branch_is_another_key(birds, tmp_path, monkeypatch):
    first = planned(tmp_path, monkeypatch).specs[0]
    assert first.identity()["commit"] == birds.refs["main"]
    assert planned(tmp_path, monkeypatch).specs[0].key == first.key

    # The same data at another commit.
    files = {**files_of(), "README.md": b"more words"}
    commit = birds.commit(files)
    moved = planned(tmp_path, monkeypatch).specs[0]
    assert (moved.fingerprint, moved.identity()["commit"]) == (first.fingerprint, commit)
    assert moved.key != first.key

    old = planned(tmp_path, monkeypatch, revision=first.identity()["commit"]).specs[0]
    assert old.key == first.key


def test_the_runs_of_a_plan_read_the_commit_of_the_plan(birds, server, tmp_path, monkeypatch):
    from nlbench.training.run_data import load_data

    spec = planned(tmp_path, monkeypatch).specs[0]
    birds.commit(files_of(seed=50))
    server.requests.clear()
    assert load_data(spec, tmp_path / "data").info.commit == spec.identity()["commit"]
    assert server.requests == []


def test_a_record_becomes_its_run_again(birds, tmp_path, monkeypatch):
    from nlbench.plan.rebuild import Files, rebuild

    spec = planned(tmp_path, monkeypatch).specs[0]
    birds.commit(files_of(seed=50))
    later = planned(tmp_path, monkeypatch).specs
    again = rebuild(spec.identity(), Files.of(later))
    assert again.key == spec.key
    assert again.condition.folder_options.revision == spec.identity()["commit"]


def test_one_dataset_at_two_revisions_is_refused(birds, tmp_path, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    entry = {"name": "hf", "path": "ann/birds"}
    text = {
        "name": "x",
        "protocol": "images-32",
        "datasets": [entry, {**entry, "revision": birds.refs["main"]}],
        "methods": {"ce": {}},
        "seeds": [0],
    }
    suite, problems = read_suite(text)
    with pytest.raises(SuiteError, match=r"datasets.1.revision: is '' in an entry above"):
        expand(suite, problems, places=Places.of_user(tmp_path / "data"))


# ---- Refusals of the hub -------------------------------------------------------------------------


def test_an_unknown_dataset(birds, tmp_path):
    with pytest.raises(DataMissing, match=r"no such dataset at http.*Did you mean 'ann/birds'\?"):
        load(tmp_path, "ann/brids")
    with pytest.raises(DataError, match="'birds': a dataset of the hub is named as owner/name"):
        load(tmp_path, "birds")
    with pytest.raises(DataError, match="is named as owner/name"):
        load(tmp_path, "../birds")


def test_an_unknown_revision(birds, tmp_path):
    with pytest.raises(
        DataMissing, match=r"no revision 'mian'\. It has: main\. Did you mean 'main'\?"
    ):
        load(tmp_path, revision="mian")


def test_a_gated_dataset(birds, tmp_path):
    birds.gated = True
    with pytest.raises(DataMissing, match=r"accept their terms.*datasets/ann/birds.*hf auth login"):
        load(tmp_path)


def test_a_token_that_is_not_valid(birds, server, tmp_path):
    server.status = 403
    with pytest.raises(DataMissing, match=r"refuses access.*hf auth login"):
        load(tmp_path)


# ---- No network, and downloads that break --------------------------------------------------------


@pytest.mark.parametrize("how", ["no server", "offline", "server error"])
def test_without_network_the_last_commit_is_used(birds, server, tmp_path, monkeypatch, capsys, how):
    first = load(tmp_path)
    capsys.readouterr()
    cut_off(server, monkeypatch, how)
    again = load(tmp_path)
    assert again.info.commit == first.info.commit
    assert again.fingerprint == first.fingerprint
    told = capsys.readouterr().err
    assert "the hub could not be asked" in told
    assert "the commit that the default branch had when it was asked last" in told


@pytest.mark.parametrize("how", ["no server", "offline", "server error"])
def test_without_network_and_files_the_fix_is_said(birds, server, tmp_path, monkeypatch, how):
    cut_off(server, monkeypatch, how)
    with pytest.raises(DataMissing, match=r"cannot be asked .*nlbench data fetch.*HF_HUB_OFFLINE"):
        load(tmp_path)


def cut_off(server, monkeypatch, how):
    """Let the client reach no hub."""
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        return
    if how == "server error":
        server.status = 503
        return
    # Nobody listens at this port.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def test_a_snapshot_of_another_program_is_used(birds, server, tmp_path, monkeypatch):
    download = huggingface_hub.hf_hub_download
    names = [name for name in files_of() if name.endswith(".parquet")]
    for name in names[1:]:
        download("ann/birds", name, repo_type="dataset", endpoint=server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"train-00000-of-00002.parquet is not there"):
        load(tmp_path)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    download("ann/birds", names[0], repo_type="dataset", endpoint=server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load(tmp_path).info.commit == birds.refs["main"]


def test_a_broken_download_goes_on_where_it_stopped(birds, server, tmp_path, monkeypatch):
    # The client writes so many bytes at once.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    server.break_after = 1000
    data = load(tmp_path)
    assert any(line.endswith("from 1000") for line in server.requests)
    assert data.label_sets["given"].tolist() == TRAIN


def test_a_part_of_a_file_is_not_taken_for_whole(birds, server, tmp_path):
    load(tmp_path)
    [blob] = [
        path.resolve()
        for path in (tmp_path / "hf").rglob("train-00001-of-00002.parquet")
        if path.exists()
    ]
    content = blob.read_bytes()
    blob.write_bytes(content[:-7])
    server.requests.clear()
    assert load(tmp_path).label_sets["given"].tolist() == TRAIN
    assert len(server.downloads()) == 1
    assert blob.read_bytes() == content


def test_a_file_that_the_hub_does_not_have(birds, server, tmp_path):
    found = hub.snapshot("ann/birds", "", tmp_path / "cache")
    del birds.commits[found.commit]["data/test-00000-of-00001.parquet"]
    with pytest.raises(DataMissing, match="test-00000-of-00001"):
        load(tmp_path, revision=found.commit)


def test_other_content_than_the_hub_says_is_not_kept(birds, server, tmp_path):
    found = hub.snapshot("ann/birds", "", tmp_path / "cache")
    name = "data/test-00000-of-00001.parquet"
    content = birds.commits[found.commit][name]
    birds.commits[found.commit][name] = content[::-1]
    with pytest.raises(DataError, match="another sha256"):
        load(tmp_path, revision=found.commit)
    birds.commits[found.commit][name] = content
    assert load(tmp_path, revision=found.commit).test_labels.tolist() == TEST


def test_a_name_that_leads_out_of_the_cache_is_left_out(birds, tmp_path):
    birds.commit({**files_of(), "../../train-00009-of-00009.parquet": b"x", "/x.parquet": b"x"})
    assert len(hub.snapshot("ann/birds", "", tmp_path / "cache").files) == 3


def test_the_missing_package_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataMissing, match=r"pip install 'nlbench\[hub\]'"):
        load(tmp_path)
