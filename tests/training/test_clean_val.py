"""A part of a folder with true labels that selects an epoch, and that no method gets."""

import shutil

import pytest
from layouts import Folder
from sweeps import history, method_file

from nlbench import api
from nlbench.errors import SuiteError
from nlbench.results import table


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """Return a folder with a part val/ beside train/ and test/."""
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    place = Folder().write_classes(tmp_path / "birds")
    other = Folder(test=2).write_classes(tmp_path / "other")
    shutil.copytree(other / "test", place / "val")
    return place


def sweep(out, place, methods=None, methods_dir=None, **entry):
    suite = {
        "name": "t", "protocol": "images-32", "seeds": [0], "methods": methods or {"ce": {}},
        "datasets": [{"name": "folder", "path": str(place), **entry}],
    }  # fmt: skip
    small = {"model": "cnn3", "precision": "float32", "batch_size": 8, "epochs": 3}
    return api.prepare(suite, out=out, overrides=small, device="cpu", methods_dir=methods_dir)


def test_it_selects_an_epoch_in_a_column_of_its_own(tmp_path, birds):
    sw = sweep(tmp_path / "out", birds, clean_val="val")
    sw.run()
    record = sw.store.read(sw.specs[0].key)
    assert record.status == "done", record.error

    epochs = history(sw.store, record.key)
    for metric, part in (("selected", "val"), ("selected_clean", "clean_val")):
        scores = [float(epoch[f"{part}_accuracy"]) for epoch in epochs]
        assert record.metrics[f"{metric}_epoch"] == scores.index(max(scores))
    text = table.render(sw.plan.as_json(), sw.store, methods=sw.methods)
    assert "selected on clean val" in text
    assert "is best on a validation set with true labels" in text
    assert not any("is not read" in warning for warning in record.warnings)


def test_without_the_option_it_is_named_and_not_read(tmp_path, birds):
    with_it, without = (
        sweep(tmp_path, birds, **entry).specs[0] for entry in ({"clean_val": "val"}, {})
    )
    assert with_it.key != without.key
    shutil.rmtree(birds / "val")
    assert sweep(tmp_path, birds).specs[0].key == without.key


LOOK = """
    class Look(Method):
        def prepare(self, run):
            assert len(run.val_images) == 3, len(run.val_images)

        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)
"""


def test_a_method_validates_on_the_noisy_part(tmp_path, birds):
    place = method_file(tmp_path / "m", "look", LOOK)
    sw = sweep(tmp_path / "out", birds, {"look": {}}, place, clean_val="val")
    sw.run()
    record = sw.store.read(sw.specs[0].key)
    assert record.status == "done", record.error
    assert record.noise["num_val"] == 3


def test_a_list_may_name_it(tmp_path, birds):
    lines = ["path,label"]
    for path in sorted(birds.glob("val/*/*.jpg")):
        lines.append(f'"{path.relative_to(birds)}","{path.parent.name}"')
    (birds / "checked.csv").write_text("\n".join(lines))
    listed = sweep(tmp_path, birds, clean_val="checked")
    assert listed.specs[0].condition.folder_options.clean_val == "checked"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"clean_val": "holdout"}, "clean_val is 'holdout', and there is neither holdout/ nor"),
        ({"clean_val": "train"}, "must be the name of another part than train and test"),
        ({"clean_val": "../x"}, "must be the name of another part"),
        ({"clean_val": "twice"}, r"is a test image too .*an image may be in one part only"),
    ],
)
def test_a_part_that_cannot_be_it(tmp_path, birds, entry, said):
    image = next(birds.glob("test/*/*.jpg"))
    line = f'"{image.relative_to(birds)}","{image.parent.name}"'
    (birds / "twice.csv").write_text(f"path,label\n{line}")
    with pytest.raises(SuiteError, match=said):
        sweep(tmp_path, birds, **entry)


def test_other_datasets_do_not_take_it(tmp_path):
    suite = {
        "name": "t", "protocol": "digits", "datasets": [{"name": "digits", "clean_val": "val"}],
        "methods": {"ce": {}}, "seeds": [0],
    }  # fmt: skip
    with pytest.raises(SuiteError, match="clean_val: only a folder of your own takes it"):
        api.prepare(suite, out=tmp_path)
