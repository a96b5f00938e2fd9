"""One run: seeded streams, the whole method interface, resume, divergence, helper networks."""

import random
import shutil
import threading

import numpy as np
import pytest
import torch
from sweeps import history, listener, method_file, outcome, suite
from sweeps import sweep as sweep_in

import nlbench
from nlbench import api, code_hash, registry
from nlbench.executors import base
from nlbench.results.store import Store
from nlbench.training import run_data, train
from nlbench.training.context import RunOptions

# --- what several tests share ---------------------------------------------------------------------


def sweep(tmp_path, methods, epochs=2, overrides=None, methods_dir=None, seeds=(0,)):
    """Return a prepared sweep of these rows, in the store `out` of the test's folder."""
    return sweep_in(
        tmp_path / "out",
        methods,
        seeds=seeds,
        methods_dir=methods_dir,
        epochs=epochs,
        **(overrides or {}),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a sweep of ce, elr and forward, trained for two epochs. Tests only read its store."""
    done = sweep(tmp_path_factory.mktemp("trained"), {"ce": {}, "elr": {}, "forward": {}})
    done.run()
    assert done.failures() == []
    return done


def of(sw, row):
    """Return the spec and the record of a row of a sweep with one seed."""
    (spec,) = [spec for spec in sw.specs if spec.row == row]
    return spec, sw.store.read(spec.key)


EVERYTHING = """
    import copy

    class Everything(Method):
        # Uses each part of the interface: two networks, a teacher, views, and its own plan of
        # batches, optimisers and schedule.
        num_networks = 2

        def __init__(self, task: Task, lr_shift: float = 0.5):
            super().__init__(task)
            self.lr_shift = lr_shift
            self.shift = nn.Parameter(torch.zeros(task.num_train, task.num_classes))
            self.register_buffer("targets", torch.zeros(task.num_train, task.num_classes))
            self.register_buffer("weights", torch.ones(task.num_train))

        def prepare(self, run):
            self.teacher = nn.ModuleList([copy.deepcopy(run.networks[0])])

            def constant(at):
                return 1.0

            def sgd(parameters):
                return torch.optim.SGD(parameters, lr=self.lr_shift)

            def adam(parameters):
                return torch.optim.Adam(parameters, lr=1e-3)

            run.optimise([self.shift], sgd, "shift", constant)
            run.optimise(run.networks[1].parameters(), adam, "network1")

        def on_epoch_start(self, run, epoch):
            logits = run.predict_train(run.networks[0])
            losses = F.cross_entropy(logits, run.task.labels, reduction="none")
            self.weights.copy_(losses < losses.quantile(0.9))
            assert 0 <= run.validate(run.networks[0]) <= 1

        def batches(self, run, epoch):
            draw = torch.randperm(run.task.num_train, generator=run.generator("plan"))
            for index in draw.split(256):
                half = len(index) // 2
                yield run.batch(index[:half]), run.batch(index[half:])

        def training_step(self, run, one, two):
            logits = run.networks[0](one.images)
            shifted = logits + self.shift[one.index]
            losses = F.cross_entropy(shifted, one.labels, reduction="none")
            run.backward_step((self.weights[one.index] * losses).mean(), "network0", "shift")

            with torch.no_grad():
                guess = self.teacher[0](two.view(1)).softmax(1)
                self.targets[two.index] = 0.5 * self.targets[two.index] + 0.5 * guess

            run.backward_step(F.cross_entropy(run.networks[1](two.images), guess), "network1")
            return logits

        def on_epoch_end(self, run, epoch):
            with torch.no_grad():
                for old, new in zip(self.teacher[0].parameters(), run.networks[0].parameters()):
                    old.lerp_(new, 0.1)

        def predict(self, run, images):
            return run.networks[0](images) + run.networks[1](images)
"""


# --- the interface, stopping and resuming ---------------------------------------------------------


def test_a_method_can_use_the_whole_interface(tmp_path):
    folder = method_file(tmp_path / "m", "everything", EVERYTHING)
    sw = sweep(tmp_path, {"everything": {}}, 2, {"val_fraction": 0.1}, folder)
    sw.run()
    record = sw.store.read(sw.specs[0].key)

    assert record.status == "done", record.error
    assert record.method["networks"] == 2
    assert record.method["own_optimisers"] == ["network1"]
    # Half of the examples pass through network 0, network 1 and the teacher each. All pass through
    # network 0 in predict_train, and the 140 validation images in validate.
    assert record.method["forward_passes"] == pytest.approx(2.5 + 140 / 1257, rel=1e-3)
    optional = {"selected", "selected_epoch", "target_accuracy", "single_mean", "single_best"}
    assert optional <= set(record.metrics)
    assert set(record.timing) == {"prepare", "fits", "train", "evaluate"}
    assert record.noise["num_val"] == 140
    assert record.noise["num_train"] == 1257


class Stop(BaseException):
    """Stop a run as a kill does: nothing in the harness catches this."""


def stop_at(epoch):
    """Return a hook that stops the run when this epoch is reported."""

    def hook(spec, at, epochs, row):
        if at == epoch:
            raise Stop

    return hook


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        ("forward", {}),
        ("everything", {}),
        # `nlbench check` resumes every method, so these are checked a second time at night only.
        pytest.param("ce", {}, marks=pytest.mark.nightly),
        pytest.param("elr", {}, marks=pytest.mark.nightly),
        pytest.param("alr", {}, marks=pytest.mark.nightly),
        pytest.param("gce", {"truncate": True}, marks=pytest.mark.nightly),
    ],
)
def test_a_resumed_run_equals_one_never_stopped(tmp_path, row, entry):
    folder = method_file(tmp_path / "m", "everything", EVERYTHING)
    args = ({row: entry}, 6, {"val_fraction": 0.1}, folder)
    whole = sweep(tmp_path / "a", *args)
    whole.run(checkpoint_seconds=0)

    cut = sweep(tmp_path / "b", *args)
    with pytest.raises(Stop):
        cut.run(listener(on_epoch=stop_at(3)), checkpoint_seconds=0)

    assert cut.store.read(cut.specs[0].key) is None

    seen = []
    cut.run(
        listener(on_epoch=lambda spec, epoch, epochs, line: seen.append(epoch)),
        checkpoint_seconds=0,
    )

    # Epoch 3 had been reported when the run was stopped, but its checkpoint was not yet written.
    assert seen == [3, 4, 5]
    assert outcome(cut) == outcome(whole)
    assert not (cut.store.run_dir(cut.specs[0].key) / "checkpoint.pt").exists()


def test_a_corrupt_checkpoint_is_set_aside_and_the_run_done_again(tmp_path):
    whole = sweep(tmp_path / "a", {"elr": {}}, 3)
    whole.run()

    cut = sweep(tmp_path / "b", {"elr": {}}, 3)
    warnings = []
    cut.store.warn = warnings.append

    with pytest.raises(Stop):
        cut.run(listener(on_epoch=stop_at(1)), checkpoint_seconds=0)

    path = cut.store.run_dir(cut.specs[0].key) / "checkpoint.pt"
    # Cut off, as by a disk that was full.
    path.write_bytes(path.read_bytes()[:1000])
    cut.run()

    assert outcome(cut) == outcome(whole)
    assert str(path) in warnings[0]
    assert "the checkpoint cannot be used" in warnings[0]
    assert path.with_name("checkpoint.pt.corrupt-1").exists()


def test_the_checkpoint_of_another_seed_is_set_aside_and_the_run_done_again(tmp_path):
    whole = sweep(tmp_path / "a", {"elr": {}}, 3)
    whole.run()
    first, second = sweep(tmp_path / "b", {"elr": {}}, 3, seeds=(0, 1)).specs
    cut = sweep(tmp_path / "b", {"elr": {}}, 3, seeds=(1,))
    with pytest.raises(Stop):
        cut.run(listener(on_epoch=stop_at(1)), checkpoint_seconds=0)

    folder = cut.store.run_dir(first.key)
    folder.mkdir()
    shutil.copy(cut.store.run_dir(second.key) / "checkpoint.pt", folder)
    again = sweep(tmp_path / "b", {"elr": {}}, 3)
    again.store.warn = (warnings := []).append
    again.run()

    assert outcome(again) == outcome(whole)
    assert "it belongs to seed 1, and not to seed 0" in warnings[0]


def test_the_same_seed_gives_the_same_result_and_another_seed_another(tmp_path, trained):
    again = sweep(tmp_path, {"elr": {}}, seeds=(0, 1))
    again.run()
    first, other = outcome(again)["elr", 0], outcome(again)["elr", 1]
    assert first == outcome(trained)["elr", 0]
    assert first != other


# --- what a method must not change or see ---------------------------------------------------------


PROBE = """
    class Probe(Method):
        # Keeps sums of the images and labels of each batch and of the first weights in a buffer.
        # Draws many random numbers of its own, or none.
        def __init__(self, task: Task, greedy: bool = False):
            super().__init__(task)
            self.greedy = greedy
            if greedy:
                torch.rand(1000)
            C = task.num_classes
            self.register_buffer("T", torch.zeros(C, C, dtype=torch.float64))

        def training_step(self, run, batch):
            if self.greedy:
                torch.rand(77)
                torch.rand(5, generator=run.generator("greedy"))

            seen = batch.images.double().sum()
            seen += batch.labels.double() @ torch.arange(len(batch)).double()
            if run.step == 0:
                first = next(iter(run.networks[0].parameters()))
                seen += first.detach().double().sum()
            place = run.step % 100
            self.T[place // 10, place % 10] += seen

            # Only the first weights are summed up above, because the ones after a step differ: the
            # shy one learns nothing.
            loss = F.cross_entropy(run.networks[0](batch.images), batch.labels)
            run.backward_step(loss if self.greedy else 0 * loss)
"""


def test_one_methods_draws_do_not_shift_anothers(tmp_path):
    folder = method_file(tmp_path / "m", "probe", PROBE)
    rows = {"shy": {"method": "probe"}, "greedy": {"method": "probe", "greedy": True}}
    sw = sweep(tmp_path, rows, 3, methods_dir=folder)
    sw.run()

    seen = {}
    for spec in sw.specs:
        assert sw.store.read(spec.key).status == "done"
        with np.load(sw.store.run_dir(spec.key) / "predictions.npz") as file:
            seen[spec.row] = file["T"]

    # Three epochs have eleven batches each, and each batch leaves a number.
    assert np.count_nonzero(seen["shy"]) >= 33
    np.testing.assert_array_equal(seen["shy"], seen["greedy"])


# One method of each shape: a loss, a loss with targets, and two networks with the noise rate as
# privileged information. The other methods follow at night.
SHAPES = {"ce", "elr", "co-teaching"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in SHAPES else pytest.mark.nightly)
        for name in sorted(registry.method_files())
    ],
)
def test_clean_labels_cannot_be_reached(tmp_path, name):
    """Permute the clean labels: predictions on training and test images do not change."""
    sw = sweep(tmp_path, {name: {}}, 3, {"val_fraction": 0.1})
    spec = sw.specs[0]
    data = run_data.load_data(spec, sw.data_dir)
    mixed = np.random.default_rng(0).permutation(data.clean_labels)

    predictions = []
    for part, clean in (("a", data.clean_labels), ("b", mixed)):
        store = Store(tmp_path / part)
        options = RunOptions((torch.device("cpu"),), sw.data_dir, sw.methods)
        changed = type(data)(**{**vars(data), "clean_labels": clean})
        record = train.train(spec, changed, options, store, base.Listener())

        with np.load(store.run_dir(spec.key) / "predictions.npz") as file:
            predictions.append((file["test"], file["train"], record.metrics["final_clean_right"]))

    (test_a, train_a, right_a), (test_b, train_b, right_b) = predictions
    np.testing.assert_array_equal(test_a, test_b)
    np.testing.assert_array_equal(train_a, train_b)
    # The scores do depend on the clean labels, so they really were different.
    assert right_a != right_b


# --- runs that fail, and code that changes --------------------------------------------------------


DIVERGES = """
    class Diverges(Method):
        def loss(self, logits, batch):
            loss = F.cross_entropy(logits, batch.labels)
            if self.epoch == 1:
                loss = loss * float("nan")
            return loss

        def on_epoch_start(self, run, epoch):
            self.epoch = epoch
"""
RAISES = """
    class Raises(Method):
        def loss(self, logits, batch):
            raise KeyError("on purpose")
"""


def test_a_diverged_and_a_failed_run_are_records_and_the_sweep_goes_on(tmp_path):
    folder = method_file(tmp_path / "m", "diverges", DIVERGES)
    method_file(folder, "raises", RAISES)
    rows = {"diverges": {}, "raises": {}, "ce": {}}
    sw = sweep(tmp_path, rows, 3, methods_dir=folder)
    sw.run()
    records = {spec.row: sw.store.read(spec.key) for spec in sw.specs}

    assert records["ce"].status == "done"
    assert records["diverges"].status == "diverged"
    assert (records["diverges"].error["epoch"], records["diverges"].error["step"]) == (1, 11)
    assert records["diverges"].metrics == {}
    # The metrics of the epoch before are kept.
    assert len(history(sw.store, records["diverges"].key)) == 1

    assert records["raises"].status == "failed"
    assert "on purpose" in records["raises"].error["traceback"]
    assert {r.spec["method"] for r in sw.failures()} == {"diverges", "raises"}

    again = sweep(tmp_path, rows, 3, methods_dir=folder)
    # An error may have a passing cause, so the run is tried again. A divergence is a result.
    assert [spec.row for spec in again.state.todo] == ["raises"]


def test_changed_code_marks_a_record_and_stale_rerun_redoes_it(tmp_path):
    body = """
        class Mine(Method):
            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels)
    """
    folder = method_file(tmp_path / "m", "mine", body)
    sweep(tmp_path, {"mine": {}}, 1, methods_dir=folder).run()
    path = folder / "mine.py"

    for text, stale in (
        (path.read_text() + "\n# a comment\n", 0),
        (path.read_text() + "\nX = 1\n", 1),
    ):
        path.write_text(text)
        # A file is hashed once per process, so that this process would not notice the change.
        code_hash.file_hash.cache_clear()
        state = sweep(tmp_path, {"mine": {}}, 1, methods_dir=folder).state
        assert (len(state.done), len(state.stale), len(state.todo)) == (1, stale, 0)

    redo = api.prepare(
        suite({"mine": {}}),
        out=tmp_path / "out",
        overrides={"epochs": 1},
        methods_dir=folder,
        stale="rerun",
    )

    assert len(redo.state.todo) == 1


# --- helper networks and privileged information ---------------------------------------------------


def test_a_helper_network_is_trained_once_for_both_corrections(tmp_path):
    sw = sweep(tmp_path, {"forward": {}, "backward": {}}, 3)
    fitted = []
    sw.run(listener(on_fit=lambda spec, epoch, epochs, metrics: fitted.append(epoch)))

    assert fitted == [0, 1, 2]

    one, two = (sw.store.read(spec.key) for spec in sw.specs)
    assert one.timing["fits"] == two.timing["fits"] > 0
    assert len(list((sw.store.root / "fits").glob("*.pt"))) == 1


def test_an_interrupted_helper_goes_on_where_it_was(tmp_path):
    whole = sweep(tmp_path / "a", {"forward": {}}, 4)
    whole.run()

    cut = sweep(tmp_path / "b", {"forward": {}}, 4)

    with pytest.raises(Stop):
        cut.run(listener(on_fit=stop_at(2)), checkpoint_seconds=0)

    fitted = []
    cut.run(listener(on_fit=lambda spec, epoch, epochs, metrics: fitted.append(epoch)))

    assert fitted == [2, 3]
    assert outcome(cut) == outcome(whole)


def test_the_true_T_is_told_only_to_a_row_that_asks_for_it(tmp_path, trained):
    sw = sweep(tmp_path, {"told": {"method": "forward", "T": True}})
    sw.run()
    _, estimated = of(trained, "forward")
    _, told = of(sw, "told")

    assert (estimated.method["told"], told.method["told"]) == ([], ["T"])
    assert told.method["T_mean_absolute_error"] == 0
    assert estimated.method["T_mean_absolute_error"] > 0
    assert [row["told"] for row in sw.plan.as_json()["rows"]] == [["T"]]


def test_a_secret_that_was_not_declared_cannot_be_had(tmp_path):
    body = """
        class Nosy(Method):
            def loss(self, logits, batch):
                return logits.sum() * self.task.noise_rate
    """
    folder = method_file(tmp_path / "m", "nosy", body)
    sw = sweep(tmp_path, {"nosy": {}}, 1, methods_dir=folder)
    sw.run()
    record = sw.store.read(sw.specs[0].key)

    assert record.status == "failed"
    assert "not told noise_rate" in record.error["message"]


# --- records and steps ----------------------------------------------------------------------------


def test_records_hold_what_a_reader_needs(trained):
    spec, record = of(trained, "elr")
    assert record.noise["noise_rate_full"] == pytest.approx(0.4, abs=0.005)
    # Nothing is held out for validation, so all examples are training examples.
    assert record.noise["noise_rate_train"] == record.noise["noise_rate_full"]
    assert len(record.noise["labels_hash"]) == 16
    assert record.spec["params"] == {"beta": 0.7, "lam": 3.0}
    assert record.spec["protocol"]["precision"] == "float32"
    needed = {"torch", "device", "device_name", "threads", "ops", "precision"}
    needed |= {"processor", "kernels", "cpu_capability", "mkldnn"}
    assert needed <= set(record.environment)

    epochs = history(trained.store, record.key)
    assert len(epochs) == 2
    assert float(epochs[-1]["test_accuracy"]) == record.metrics["last"]

    with np.load(trained.store.run_dir(record.key) / "predictions.npz") as file:
        labels = file["labels"]
        assert (file["test"].shape, file["train"].shape) == ((400,), (1397,))

    data = run_data.load_data(spec, trained.data_dir)
    np.testing.assert_array_equal(labels, data.labels)

    frame = nlbench.load(trained.store.root)
    assert frame.loc[record.key, "last"] == record.metrics["last"]


def test_the_known_gradient_gives_the_step_that_autograd_gives(tmp_path):
    body = """
        class Fast(Method):
            def __init__(self, task: Task, fast: bool = True):
                super().__init__(task)
                if not fast:
                    self.loss_and_grad = None

            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels, reduction="none")

            def loss_and_grad(self, logits, batch):
                losses = self.loss(logits, batch)
                return losses, (logits.softmax(1) - F.one_hot(batch.labels, 10)) / len(batch)
    """
    folder = method_file(tmp_path / "m", "fast", body)
    rows = {"fast": {}, "slow": {"method": "fast", "fast": False}}
    sw = sweep(tmp_path, rows, 2, methods_dir=folder)
    sw.run()
    fast, slow = (history(sw.store, spec.key) for spec in sw.specs)

    for a, b in zip(fast, slow, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-4)


def test_bfloat16_runs_hand_float32_logits_to_the_method(tmp_path):
    body = """
        class Checks(Method):
            def loss(self, logits, batch):
                assert logits.dtype == torch.float32
                assert batch.images.dtype == torch.float32
                return F.cross_entropy(logits, batch.labels)
    """
    folder = method_file(tmp_path / "m", "checks", body)
    sw = sweep(tmp_path, {"checks": {}}, 1, {"precision": "bfloat16"}, folder)
    sw.run()

    assert sw.store.read(sw.specs[0].key).status == "done"


# --- runs beside other runs -----------------------------------------------------------------------


def test_a_run_that_another_process_holds_is_waited_for_and_not_trained_again(tmp_path):
    done = sweep(tmp_path / "elsewhere", {"elr": {}}, 1)
    done.run()
    theirs = done.store.read(done.specs[0].key)

    sw = sweep(tmp_path, {"elr": {}, "ce": {}}, 1)
    held, released = threading.Event(), threading.Event()

    def other_process():
        with sw.store.lock(theirs.key) as mine:
            assert mine
            held.set()
            released.wait(60)
            sw.store.write(theirs, [])

    thread = threading.Thread(target=other_process)
    thread.start()
    held.wait(60)

    started, finished = [], []
    reports = listener(
        on_start=lambda spec: started.append(spec.row),
        on_wait=lambda count: released.set(),
        on_finish=lambda spec, record: finished.append((spec.row, record.timing)),
    )
    sw.run(reports)
    thread.join()

    assert started == ["ce"]
    assert [row for row, _ in finished] == ["ce", "elr"]
    assert finished[1][1] == theirs.timing


def test_a_method_that_writes_to_the_given_labels_fails_and_reaches_no_other_run(tmp_path, trained):
    body = """
        class Writes(Method):
            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels)

            def on_epoch_end(self, run, epoch):
                run.task.labels.zero_()
    """
    folder = method_file(tmp_path / "m", "writes", body)
    both = sweep(tmp_path / "both", {"writes": {}, "ce": {}}, 2, methods_dir=folder)
    both.run()
    writes, ce = (both.store.read(spec.key) for spec in both.specs)

    assert writes.status == "failed"
    assert "wrote to task.labels" in writes.error["message"]
    assert ce.metrics == of(trained, "ce")[1].metrics


def test_a_helper_with_its_own_loss_belongs_to_its_method_and_hyperparameters(tmp_path):
    body = """
        class Own(Method):
            def __init__(self, task: Task, weight: float = 1.0):
                super().__init__(task)
                self.weight = weight
                self.register_buffer("T", torch.zeros(task.num_classes, task.num_classes))

            def prepare(self, run):
                def weighted(logits, batch):
                    return self.weight * F.cross_entropy(logits, batch.labels)

                helper = run.fit("own", weighted, 2)
                self.T[0] = run.predict_train(helper).sum(0)

            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels)
    """
    folder = method_file(tmp_path / "m", "own", body)
    rows = {"own": {}, "light": {"method": "own", "weight": 0.01}}
    sw = sweep(tmp_path, rows, 1, methods_dir=folder)
    sw.run()

    assert len(list((sw.store.root / "fits").glob("*.pt"))) == 2

    estimates = []
    for spec in sw.specs:
        with np.load(sw.store.run_dir(spec.key) / "predictions.npz") as file:
            estimates.append(file["T"])
    assert not np.array_equal(*estimates)


def test_outputs_that_are_not_finite_after_the_last_step_are_a_divergence(tmp_path):
    # The batch size makes the epoch one step, whose loss is still finite.
    sw = sweep(tmp_path, {"ce": {}}, 1, {"batch_size": 2000, "lr": 1e30})
    sw.run()
    record = sw.store.read(sw.specs[0].key)
    assert (record.status, record.error["epoch"], record.error["step"]) == ("diverged", 0, 0)


def test_a_helper_that_diverges_makes_its_run_diverged(tmp_path):
    sw = sweep(tmp_path, {"forward": {}}, 2, {"lr": 1e30})
    sw.run()
    record = sw.store.read(sw.specs[0].key)
    assert record.status == "diverged", record.error
    assert "helper network" in record.error["message"]
    assert sweep(tmp_path, {"forward": {}}, 2, {"lr": 1e30}).state.todo == []


def test_global_generators_are_the_runs_own(tmp_path):
    body = """
        import random
        import numpy

        class Draws(Method):
            def loss(self, logits, batch):
                factor = 0.5 + numpy.random.rand() + random.random()
                return F.cross_entropy(logits, batch.labels) * factor
    """
    folder = method_file(tmp_path / "m", "draws", body)
    sweeps = [sweep(tmp_path / part, {"draws": {}}, 2, methods_dir=folder) for part in "ab"]

    # The caller's generators differ, so equal outcomes come from the seeds of the runs.
    for caller_seed, sw in enumerate(sweeps):
        np.random.seed(caller_seed)
        random.seed(caller_seed)
        sw.run()

        # The caller's generators go on as if no run had been trained.
        assert np.random.rand() == np.random.RandomState(caller_seed).rand()
        assert random.random() == random.Random(caller_seed).random()

    assert outcome(sweeps[0]) == outcome(sweeps[1])
