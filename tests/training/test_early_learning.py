"""The suite early-learning-linear, its cross entropy row: early learning, then memorisation, as theory has them.

Liu et al. (ELR), NeurIPS 2020, arXiv:2007.00151, section 3. What is expected of the first step is worked out here. From
zero all examples weigh the same, so the step goes along g = mean of y x, y = +1 or -1 for the given label. With a share
WRONG of wrong labels and c = 1 - 2 WRONG, g is c v plus noise of variance sigma^2 / n in each coordinate. On a new
example the true class wins by a margin that is normal with mean c and variance sigma^2 (c^2 + (1 + sigma^2 p) / n). A
training example is itself in g: its margin is sigma^2 p / n higher where its label is right, lower where it is wrong.
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
OWN = SIGMA**2 * P / INFO.num_train  # what an example adds to its own margin
seeds = pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.nightly)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the suite's run of ce by its seed, trained when it is first asked for.

    A run has its record, its epochs' metrics as `rows`, and `w` after each epoch: (P,) float64, the
    weights of class 0, which lies around +v, less those of class 1.
    """
    return Runs(tmp_path_factory)


class Runs:
    def __init__(self, folders):
        self._folders, self._runs = folders, {}

    def __getitem__(self, seed):
        if seed not in self._runs:
            self._runs[seed] = train_ce(self._folders.mktemp("out"), seed)
        return self._runs[seed]


def train_ce(out, seed):
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

    with pytest.MonkeyPatch.context() as patch:
        sweep = api.prepare("early-learning-linear", out=out, only=["ce"], seeds=[seed], device="cpu")
        patch.setattr(setup, "models", SimpleNamespace(build=build, weights_file=models.weights_file))
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
    """Expected accuracy after the first step, where an example's own part of the margin is `own`."""
    std = SIGMA * math.sqrt(C**2 + (1 + SIGMA**2 * P) / INFO.num_train)
    return (1 + math.erf((C + own) / std / math.sqrt(2))) / 2


def lowest(rate, count):
    """Five binomial standard deviations below `rate`, and one example."""
    return rate - 5 * math.sqrt(rate * (1 - rate) / count) - 1 / count


def correlation(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


# --- first phase -------------------------------------------------------------------------------------------------


@seeds
def test_the_first_step_is_right_on_clean_and_on_wrong_examples(runs, seed):
    """An epoch's online counts are from before its step, its test accuracy from after it."""
    run = runs[seed]
    start, after = run.rows[0], run.rows[1]
    assert start["loss"] == pytest.approx(math.log(2))
    # Zero weights: a tie, which is class 0 and so one in two.
    assert start["online_wrong_true"] == start["online_clean_right"] == 0.5
    num_wrong = run.data.wrong.sum()
    assert after["online_wrong_true"] >= lowest(expected_right(-OWN), num_wrong) > 0.97
    assert after["online_clean_right"] >= lowest(expected_right(OWN), INFO.num_train - num_wrong) > 0.97
    assert start["test_accuracy"] >= lowest(expected_right(0), INFO.num_test) > 0.97


@seeds
def test_the_first_step_goes_along_the_true_direction_and_later_ones_less(runs, seed):
    run = runs[seed]
    expected = C / math.sqrt(C**2 + (1 + SIGMA**2 * P) / INFO.num_train)  # 0.71; a random direction has 0.05
    # Five times its standard deviation: 0.016 from the noise along v, 0.012 from the length of the noise.
    assert correlation(run.w[0], V) == pytest.approx(expected, abs=0.1)
    steps = [b - a for a, b in zip([np.zeros(P), *run.w[:-1]], run.w, strict=True)]
    along = [correlation(step, V) for step in steps]
    assert all(a > b for a, b in itertools.pairwise(along[:6]))
    assert max(along[50:]) < expected / 4
    assert all(step @ V > 0 for step in steps)  # what was learnt first is not unlearnt, but outgrown
    assert correlation(run.w[-1], V) < expected / 4


# --- second phase ------------------------------------------------------------------------------------------------


@seeds
def test_then_the_wrong_labels_are_memorised(runs, seed):
    run, metrics = runs[seed], runs[seed].record.metrics
    assert metrics["final_wrong_memorised"] >= 0.95
    assert metrics["final_clean_right"] >= 0.95
    true = [row["online_wrong_true"] for row in run.rows]
    assert np.argmax(true) <= 5
    assert max(true[len(true) // 2 :]) < 0.1
    memorised = [row["online_wrong_memorised"] for row in run.rows]
    assert np.allclose(np.add(true, memorised), 1)  # there is no third class
    assert metrics["best_epoch"] <= 5
    assert metrics["last"] < metrics["best"] - 0.2
    assert metrics["last"] > 0.5  # but the true direction is still in it


@seeds
def test_gradient_descent_is_stable(runs, seed):
    """Below 2/L the loss falls at each step. L, of the loss in both classes' weights, is at most half the data's."""
    run = runs[seed]
    L = np.linalg.eigvalsh(run.data.x.T @ run.data.x / INFO.num_train)[-1] / 2
    assert 3 < 2 / L / run.protocol.lr < 5
    loss = [row["loss"] for row in run.rows]
    assert all(b < a for a, b in itertools.pairwise(loss))


def test_the_phases_are_in_the_stored_history(runs):
    with open(runs[0].folder / "history.csv", newline="") as file:
        stored = list(csv.DictReader(file))
    assert len(stored) == runs[0].protocol.epochs
    for name in ("test_accuracy", "online_clean_right", "online_wrong_true", "online_wrong_memorised"):
        assert [float(row[name]) for row in stored] == [row[name] for row in runs[0].rows]


# --- against independent computations ----------------------------------------------------------------------------


@seeds
def test_the_first_steps_are_plain_gradient_descent(runs, seed):
    """The binary form of the two-class softmax, in float64: w loses 2 lr times the logistic loss's gradient."""
    run, data = runs[seed], runs[seed].data
    y, w, lr = np.where(data.given == 0, 1.0, -1.0), np.zeros(P), run.protocol.lr
    one = 1.5 / data.wrong.sum()  # an example on the boundary may be counted either way
    for row, after in list(zip(run.rows, run.w, strict=True))[:20]:
        margin = y * (data.x @ w)
        assert row["loss"] == pytest.approx(np.log1p(np.exp(-margin)).mean(), rel=1e-5)
        if w.any():
            assert row["online_wrong_memorised"] == pytest.approx((margin > 0)[data.wrong].mean(), abs=one)
            assert row["online_clean_right"] == pytest.approx((margin > 0)[~data.wrong].mean(), abs=one)
        w = w + 2 * lr * (y / (1 + np.exp(margin))) @ data.x / len(y)
        np.testing.assert_allclose(after, w, rtol=0, atol=1e-5 * np.linalg.norm(w))
        right = (data.test_x @ w > 0) == (data.test_labels == 0)
        assert row["test_accuracy"] == pytest.approx(right.mean(), abs=one)


@seeds
def test_a_line_separates_the_wrong_labels_because_there_are_enough_dimensions(runs, seed):
    data = runs[seed].data
    assert separable(data.x, data.given)
    assert not separable(data.x[:, : P // 4], data.given)  # Cover 1965: labels at random need about n/2 dimensions
    assert separable(data.x, np.random.default_rng(seed).permutation(data.given))  # nothing special about these


def separable(x, labels):
    """Whether a hyperplane through the origin has each class on its own side: a linear programme for the widest margin.

    Its weights are in [-1, 1], so that it has a solution whatever the data: 0, with all weights 0, where there is none.
    """
    n, p = x.shape
    signed = np.where(labels[:, None] == 0, 1, -1) * x
    rows = np.hstack([-signed, np.ones((n, 1))])  # margin - signed w <= 0
    found = linprog([0] * p + [-1], A_ub=rows, b_ub=np.zeros(n), bounds=[(-1, 1)] * (p + 1), method="highs")
    assert found.status == 0, found.message
    margin = (signed @ found.x[:p]).min()
    assert margin == pytest.approx(-found.fun, abs=1e-6)
    return margin > 1e-4
