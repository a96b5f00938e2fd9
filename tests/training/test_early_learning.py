"""The row ce of the suite early-learning-linear learns early and memorises later, as in theory.

Liu et al. (ELR), NeurIPS 2020, arXiv:2007.00151, section 3, has the theory. The expected result of
the first step is worked out here:

- The weights start from zero, where all examples weigh the same. So the first step goes along
  g = mean of y x, where y is +1 or -1 for the given label.
- With a share WRONG of wrong labels and c = 1 - 2 WRONG, g is c v plus noise of variance
  sigma^2 / n in each coordinate.
- On a new example the true class wins by a margin that is normal with mean c and variance
  sigma^2 (c^2 + (1 + sigma^2 p) / n).
- A training example is itself a part of g. Its margin is sigma^2 p / n higher where its label is
  right, and as much lower where its label is wrong.
"""

import csv
import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import linprog
from sweeps import listener

from nlbench import api, models
from nlbench.data.datasets import gaussians
from nlbench.data.datasets.gaussians import INFO, SIGMA, P, V
from nlbench.data.places import Places
from nlbench.training import run_data, setup

WRONG = 0.4
C = 1 - 2 * WRONG
# A training example adds this to its own margin, because it is a part of the gradient.
OWN = SIGMA**2 * P / INFO.num_train
seeds = pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.nightly)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the suite's run of ce by its seed, trained when it is first asked for.

    A run has its record, its epochs' metrics as `rows`, and `w` after each epoch: (P,) float64, the
    weights of class 0, which lies around +v, less those of class 1.
    """
    return Runs(tmp_path_factory)


class Runs:
    """Train the row ce for a seed when the seed is first asked for, and keep the run."""

    def __init__(self, folders):
        self._folders, self._runs = folders, {}

    def __getitem__(self, seed):
        if seed not in self._runs:
            self._runs[seed] = train_ce(self._folders.mktemp("out"), seed)
        return self._runs[seed]


def train_ce(out, seed):
    """Train the row ce of the suite for one seed, and keep its weights after each epoch."""
    networks, weights, rows, records = [], [], [], []
    real = setup.models.build

    def build(*args, **options):
        networks.append(real(*args, **options))
        return networks[-1]

    def on_epoch(spec, epoch, epochs, metrics):
        (weight,) = networks[-1].parameters()
        w = weight.detach().double().numpy()
        weights.append(w[0] - w[1])
        rows.append(metrics)

    def on_finish(spec, record):
        records.append(record)

    # The listener is given no network, so the one that the harness builds is caught here.
    with pytest.MonkeyPatch.context() as patch:
        sweep = api.prepare(
            "early-learning-linear", out=out, only=["ce"], seeds=[seed], device="cpu"
        )
        patch.setattr(
            setup, "models", SimpleNamespace(build=build, weights_file=models.weights_file)
        )
        sweep.run(listener(on_epoch=on_epoch, on_finish=on_finish))

    (spec,) = sweep.specs
    return SimpleNamespace(
        record=records[0],
        rows=rows,
        w=weights,
        protocol=spec.protocol,
        data=data_of(spec),
        folder=sweep.store.run_dir(spec.key),
    )


def data_of(spec):
    """Return the run's data as float64 matrices, made anew from its seed."""
    # This dataset is drawn from the seed and reads no file.
    nowhere = Path()
    data = gaussians.load(Places(nowhere, nowhere), spec.seed)
    data = run_data.prepare(data, seed=spec.seed, noise=spec.condition.noise)

    assert data.noise_rate_train == WRONG
    return SimpleNamespace(
        x=data.train_images.reshape(-1, P).astype(np.float64),
        given=data.labels,
        clean=data.clean_labels,
        wrong=data.labels != data.clean_labels,
        test_x=data.test_images.reshape(-1, P).astype(np.float64),
        test_labels=data.test_labels,
    )


def expected_right(own):
    """Return the expected accuracy after the first step; an example adds `own` to its margin."""
    std = SIGMA * math.sqrt(C**2 + (1 + SIGMA**2 * P) / INFO.num_train)
    return (1 + math.erf((C + own) / std / math.sqrt(2))) / 2


def lowest(rate, count):
    """Return `rate` less five binomial standard deviations and one example."""
    return rate - 5 * math.sqrt(rate * (1 - rate) / count) - 1 / count


def correlation(a, b):
    """Return the cosine of the angle between two vectors."""
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


# --- the first phase: the true classes are learnt -------------------------------------------------


@seeds
def test_the_first_step_is_right_on_clean_and_on_wrong_examples(runs, seed):
    """Look at the first two epochs, of one step each.

    An epoch's online counts are from before its step, its test accuracy is from after it.
    """
    run = runs[seed]
    start, after = run.rows[0], run.rows[1]

    assert start["loss"] == pytest.approx(math.log(2))
    # With zero weights both classes tie. A tie is counted as class 0, which is right half the time.
    assert start["online_wrong_true"] == start["online_clean_right"] == 0.5

    num_wrong = run.data.wrong.sum()
    assert after["online_wrong_true"] >= lowest(expected_right(-OWN), num_wrong) > 0.97
    assert (
        after["online_clean_right"]
        >= lowest(expected_right(OWN), INFO.num_train - num_wrong)
        > 0.97
    )
    assert start["test_accuracy"] >= lowest(expected_right(0), INFO.num_test) > 0.97


@seeds
def test_the_first_step_goes_along_the_true_direction_and_later_ones_less(runs, seed):
    run = runs[seed]
    # This is 0.71. A random direction has a correlation of about 0.05.
    expected = C / math.sqrt(C**2 + (1 + SIGMA**2 * P) / INFO.num_train)

    # The tolerance is five standard deviations: the noise along v gives 0.016, and the length of
    # the noise 0.012.
    assert correlation(run.w[0], V) == pytest.approx(expected, abs=0.1)

    steps = np.diff(run.w, axis=0, prepend=np.zeros((1, P)))
    along = [correlation(step, V) for step in steps]

    for earlier, later in itertools.pairwise(along[:6]):
        assert earlier > later
    assert max(along[50:]) < expected / 4
    # No step goes back along v: the true direction is not unlearnt, the others outgrow it.
    assert (steps @ V > 0).all()
    assert correlation(run.w[-1], V) < expected / 4


# --- the second phase: the wrong labels are memorised ---------------------------------------------


@seeds
def test_then_the_wrong_labels_are_memorised(runs, seed):
    run, metrics = runs[seed], runs[seed].record.metrics
    assert metrics["final_wrong_memorised"] >= 0.95
    assert metrics["final_clean_right"] >= 0.95

    true = [row["online_wrong_true"] for row in run.rows]
    assert np.argmax(true) <= 5
    assert max(true[len(true) // 2 :]) < 0.1

    # There is no third class, so each prediction is the true class or the given label.
    memorised = [row["online_wrong_memorised"] for row in run.rows]
    assert np.allclose(np.add(true, memorised), 1)

    assert metrics["best_epoch"] <= 5
    assert metrics["last"] < metrics["best"] - 0.2
    # The true direction is still part of the weights, so the network does better than chance.
    assert metrics["last"] > 0.5


@seeds
def test_gradient_descent_is_stable(runs, seed):
    """The loss falls at each step, because the learning rate is well below 2 / L.

    L bounds the curvature of the loss in the weights of both classes. It is at most half the
    largest eigenvalue of the data's second moments.
    """
    run = runs[seed]
    L = np.linalg.eigvalsh(run.data.x.T @ run.data.x / INFO.num_train)[-1] / 2
    assert 3 < 2 / L / run.protocol.lr < 5
    loss = [row["loss"] for row in run.rows]
    assert (np.diff(loss) < 0).all()


def test_the_phases_are_in_the_stored_history(runs):
    with open(runs[0].folder / "history.csv", newline="") as file:
        stored = list(csv.DictReader(file))

    assert len(stored) == runs[0].protocol.epochs
    for name in (
        "test_accuracy",
        "online_clean_right",
        "online_wrong_true",
        "online_wrong_memorised",
    ):
        for line, reported in zip(stored, runs[0].rows, strict=True):
            assert float(line[name]) == reported[name]


# --- against independent computations -------------------------------------------------------------


@seeds
def test_the_first_steps_are_plain_gradient_descent(runs, seed):
    """Compare with the binary form of the two-class softmax, in float64.

    The difference w of the weights of both classes loses 2 lr times the gradient of the logistic
    loss in each step.
    """
    run, data = runs[seed], runs[seed].data
    y, w, lr = np.where(data.given == 0, 1.0, -1.0), np.zeros(P), run.protocol.lr
    # An example on the boundary may be counted either way, because the run computes in float32.
    one = 1.5 / data.wrong.sum()

    for row, after in list(zip(run.rows, run.w, strict=True))[:20]:
        margin = y * (data.x @ w)
        assert row["loss"] == pytest.approx(np.log1p(np.exp(-margin)).mean(), rel=1e-5)

        # Before the first step all margins are zero, and the harness counts class 0.
        if w.any():
            assert row["online_wrong_memorised"] == pytest.approx(
                (margin > 0)[data.wrong].mean(), abs=one
            )
            assert row["online_clean_right"] == pytest.approx(
                (margin > 0)[~data.wrong].mean(), abs=one
            )

        w = w + 2 * lr * (y / (1 + np.exp(margin))) @ data.x / len(y)
        np.testing.assert_allclose(after, w, rtol=0, atol=1e-5 * np.linalg.norm(w))

        right = (data.test_x @ w > 0) == (data.test_labels == 0)
        assert row["test_accuracy"] == pytest.approx(right.mean(), abs=one)


@seeds
def test_a_line_separates_the_wrong_labels_because_there_are_enough_dimensions(runs, seed):
    data = runs[seed].data
    assert separable(data.x, data.given)
    # Cover 1965: a line separates random labels of n examples from about n / 2 dimensions on.
    assert not separable(data.x[:, : P // 4], data.given)
    # Other labels with as many of each class are separated, too: these are nothing special.
    assert separable(data.x, np.random.default_rng(seed).permutation(data.given))


def separable(x, labels):
    """Return whether a hyperplane through the origin has each class on one side.

    A linear programme looks for the widest margin. Its weights are in [-1, 1], so that it has a
    solution for any data: where no hyperplane separates them, all weights and the margin are 0.
    """
    n, p = x.shape
    signed = np.where(labels[:, None] == 0, 1, -1) * x
    # Each line says: margin - signed w <= 0.
    rows = np.hstack([-signed, np.ones((n, 1))])
    found = linprog(
        [0] * p + [-1], A_ub=rows, b_ub=np.zeros(n), bounds=[(-1, 1)] * (p + 1), method="highs"
    )

    assert found.status == 0, found.message

    margin = (signed @ found.x[:p]).min()
    assert margin == pytest.approx(-found.fun, abs=1e-6)

    return margin > 1e-4
