"""A training that is stopped within an epoch ends bit for bit as one that was not."""

import pytest
from layouts import Animal10N, Folder
from stops import train_in_pieces
from sweeps import method_file, outcome
from sweeps import sweep as sweep_in

from nlbench import api, registry

SHIPPED = [
    name
    for name, file in registry.method_files().items()
    if file.module.startswith("nlbench.methods.")
]
QUICK = ("ce", "mixup", "dividemix")


def sweep(out, methods, **options):
    """Return a prepared sweep of short runs: 200 examples, 7 steps in each of 4 epochs."""
    return sweep_in(out, methods, **{"subset": 200, "batch_size": 32, "epochs": 4, **options})


def steps_of(sw):
    """Train the run of a sweep without a stop, and return the number of its steps."""
    counted = train_in_pieces(sw, every=10**9)
    assert counted.stopped == []
    return counted.steps


def both(folder, methods, every, **options):
    """Return a run that was trained in one piece, one in pieces, and what the latter has done."""
    whole = sweep(folder / "whole", methods, **options)
    steps = steps_of(whole)
    pieces = sweep(folder / "pieces", methods, **options)
    stopper = train_in_pieces(pieces, every)
    return whole, pieces, steps, stopper


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.methods) for name in SHIPPED],
)
def test_a_run_that_stops_every_five_steps_equals_one_that_does_not(tmp_path, name):
    # incv selects few of 200 examples, for epochs of one or two steps.
    options = {"subset": 1000} if name == "incv" else {}
    whole, pieces, steps, stopper = both(tmp_path, {name: {}}, every=5, **options)

    assert outcome(pieces) == outcome(whole)
    # No step was taken twice, so each resume went on within its epoch.
    assert stopper.steps == steps
    assert len({step for _, step in stopper.stopped}) > 2


@pytest.fixture
def augmented(tmp_path, monkeypatch):
    """Return a function that prepares a sweep of a row on cropped and flipped images."""
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    Animal10N().write_binary(tmp_path / "animal10n")
    Folder().write_classes(tmp_path / "images")
    small = {"model": "cnn3_slim", "precision": "float32", "batch_size": 5, "epochs": 2}

    def prepared(out, name, dataset):
        entry = {"name": dataset}
        if dataset == "folder":
            entry["path"] = str(tmp_path / "images")
        suite = {
            "name": "t",
            # The pixels of one dataset lie in memory, and the other one's files are decoded.
            "protocol": "images-32" if dataset == "folder" else "digits",
            "datasets": [entry],
            "methods": {name: {}},
            "seeds": [0],
        }
        overrides = {**small, "augment": "crop-flip"}
        return api.prepare(
            suite, out=tmp_path / out, overrides=overrides, device="cpu", data_dir=tmp_path
        )

    return prepared


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        *((name, "folder") for name in QUICK),
        *((name, "animal10n") for name in QUICK),
        *(
            pytest.param(name, "animal10n", marks=pytest.mark.methods)
            for name in SHIPPED
            if name not in QUICK
        ),
    ],
)
def test_an_epoch_of_augmented_images_goes_on_after_each_stop(augmented, name, dataset):
    # Crops and flips are drawn with the batches. A resume draws the batches without them.
    whole, pieces = augmented("whole", name, dataset), augmented("pieces", name, dataset)
    steps = steps_of(whole)
    stopper = train_in_pieces(pieces, every=2)

    assert outcome(pieces) == outcome(whole)
    assert stopper.steps == steps
    assert stopper.stopped


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["elr", pytest.param("elr-plus", marks=pytest.mark.methods)])
def test_a_narrow_memory_is_rounded_the_same_after_a_stop(tmp_path, name, dtype):
    whole, pieces, steps, stopper = both(tmp_path, {name: {}}, every=5, memory=dtype)
    assert outcome(pieces) == outcome(whole)
    assert stopper.steps == steps

    # The memory is in the dtype that was asked for.
    wide = sweep(tmp_path / "wide", {name: {}})
    wide.run()
    assert outcome(wide) != outcome(whole)


# ---- What a method may keep from step to step ----------------------------------------------------

# Values that steps change and no checkpoint of an epoch's end holds. All of them are seen.
KEEPS = """
    import random

    import numpy as np

    class Keeps(Method):
        def on_epoch_start(self, run, epoch):
            self.count = 0
            self.recent = []
            self.by_name = {"seen": torch.zeros(run.task.num_train)}
            self.array = np.zeros(3)
            self.rng = np.random.default_rng(epoch)
            self.twister = random.Random(epoch)
            self.generator = run.generator("steps")

        def batches(self, run, epoch):
            shared = np.random.Generator(np.random.MT19937(epoch))
            for index in run.order().split(run.task.batch_size):
                yield run.batch(index), shared

        def training_step(self, run, batch, shared):
            self.count += 1
            self.array += self.count
            self.by_name["seen"][batch.index] += 1
            draws = [self.rng.random(), self.twister.random(), shared.random()]
            draws += [random.random(), np.random.rand(), torch.rand(()).item()]
            draws += [torch.rand((), generator=self.generator).item()]
            weight = sum(draws) / len(draws) + self.count / 100 + self.array.sum() / 1000
            weight += self.by_name["seen"].mean().item()
            logits = run.networks[0](batch.images)
            run.backward_step(weight * F.cross_entropy(logits, batch.labels))
            return logits
"""

# What cannot be seen, and a list that cannot be restored. So a resume begins an epoch.
HIDES = {
    "iterator": '''
        def on_epoch_start(self, run, epoch):
            self.weights = iter([0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9])

        def weight(self, run):
            return next(self.weights)
    ''',
    "list": '''
        def on_epoch_start(self, run, epoch):
            self.weights = []

        def weight(self, run):
            self.weights.append(len(self.weights))
            return 0.5 + sum(self.weights) / 10
    ''',
    "gradient": '''
        def weight(self, run):
            grads = [w.grad for w in run.networks[0].parameters()]
            return 1.0 if grads[0] is None else 1.0 + grads[0].abs().mean().item()
    ''',
    "file": '''
        def on_epoch_start(self, run, epoch):
            self.draws = open("/dev/zero", "rb")

        def weight(self, run):
            return 1.0 + len(self.draws.read(3)) / 10
    ''',
}  # fmt: skip

WEIGHTED = """
    class Hides(Method):
        {body}

        def training_step(self, run, batch):
            logits = run.networks[0](batch.images)
            weight = self.weight(run) if run.step % 7 else 1.0
            run.backward_step(weight * F.cross_entropy(logits, batch.labels))
            return logits
"""


def test_what_a_method_keeps_from_step_to_step_is_restored(tmp_path):
    folder = method_file(tmp_path / "methods", "keeps", KEEPS)
    whole, pieces, steps, stopper = both(tmp_path, {"keeps": {}}, 3, methods_dir=folder, epochs=2)

    assert outcome(pieces) == outcome(whole)
    assert stopper.steps == steps


@pytest.mark.parametrize("kind", HIDES)
def test_an_epoch_begins_again_where_its_state_cannot_be_had(tmp_path, kind):
    body = HIDES[kind].strip("\n").replace("    ", "", 1).lstrip()
    folder = method_file(tmp_path / "methods", "hides", WEIGHTED.format(body=body))
    whole, pieces, steps, stopper = both(tmp_path, {"hides": {}}, 9, methods_dir=folder)

    assert outcome(pieces) == outcome(whole)
    if kind == "list":
        # Only the resume finds that the list is not the same again.
        assert stopper.steps > steps
    else:
        # The stop waits for the end of the epoch, which is near.
        assert {step for _, step in stopper.stopped} == {0}


def test_an_object_that_raises_when_it_is_looked_at_fails_no_run(tmp_path):
    body = """
    class Shy(dict):
        def items(self):
            raise RuntimeError("go away")

    class Hides(Method):
        def on_epoch_start(self, run, epoch):
            self.shy = Shy()

        def loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels)
    """
    folder = method_file(tmp_path / "methods", "hides", body)
    whole, pieces, _, stopper = both(tmp_path, {"hides": {}}, 9, methods_dir=folder, epochs=2)

    assert outcome(pieces) == outcome(whole)
    assert {step for _, step in stopper.stopped} <= {0}
