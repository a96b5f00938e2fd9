"""Every method file: its loss against an independent float64 formula, its state, its arguments, and its own rules."""

import copy
import inspect
import io
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import lab
import numpy as np
import pytest
import torch
from lab import make_batch, make_task, no_views, train
from torch import nn

from nlbench import registry
from nlbench.method import Batch, Method, Task
from nlbench.ops.transition import estimate_T

# Classes without an example leave the helper's T close to singular, which is no matter here.
pytestmark = pytest.mark.filterwarnings("ignore:backward. the inverse of T")

FILES = {name: file for name, file in registry.method_files().items() if file.module.startswith("nlbench.methods.")}
CLASSES = {name: registry.load_method(file) for name, file in FILES.items()}
VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "official-losses.npz"

# Beside its defaults, which every file is tested with because it is in the folder.
FURTHER: dict[str, list[dict[str, Any]]] = {
    "alr": [{"warmup_share": 0.0}],
    "backward": [{"T": True}],
    "bootstrap": [{"kind": "soft"}],
    "forward": [{"T": True}],
    "gce": [{"truncate": True}, {"truncate": True, "k": 0.15, "every_share": 1.0}, {"q": 0.3}],
    "sl": [{"alpha": 6.0, "beta": 0.1, "log_zero": -4.0}],
}
# Methods that are a loss; those with a step of their own have files of their own beside this one.
LOSSES = {
    name: cls
    for name, cls in CLASSES.items()
    if cls.loss is not Method.loss and cls.training_step is Method.training_step
}
CASES = [(name, params) for name in LOSSES for params in [{}, *FURTHER.get(name, [])]]
all_cases = pytest.mark.parametrize(("name", "params"), CASES, ids=lambda v: str(v))
all_methods = pytest.mark.parametrize("name", CLASSES)
all_losses = pytest.mark.parametrize("name", LOSSES)


def make_logits(B, C, stage, seed=1):
    scale = {"early": 1.0, "late": 12.0}[stage]  # late in training: a confident network, where clamps act
    return scale * torch.randn(B, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Helper(nn.Module):
    """Predicts, for training example i, its given label with a logit of about 3."""

    def __init__(self, task):
        super().__init__()
        noise = torch.randn(task.num_train, task.num_classes, generator=torch.Generator().manual_seed(5))
        self.logits = nn.Parameter(3 * one_hot(task.labels, task.num_classes).float() + 0.3 * noise)

    def forward(self, rows):
        return self.logits[: len(rows)]


def make_run(task, validation=True, network=None):
    def fit(run, key, loss, epochs):
        helper = Helper(task)
        fitted.append((key, epochs))
        assert loss == "ce"  # the harness's own, which methods share
        return helper.eval()

    fitted: list[tuple[str, int]] = []
    run = lab.make_run(task, validation=validation, fit=fit, networks=[network] if network else None)
    run.fitted = fitted
    return run


def ready(name, params, task):
    """The method as it is when training begins."""
    method = CLASSES[name](task, **params)
    run = make_run(task)
    method.prepare(run)
    method.on_epoch_start(run, 0)
    return method


def value_and_grad(method, logits, batch):
    z = logits.detach().clone().requires_grad_()
    loss = method.loss(z, batch).mean()
    (grad,) = torch.autograd.grad(loss, z)
    return loss.detach(), grad


# --- every file, whatever it is ----------------------------------------------------------------------------------


@all_methods
def test_docstring_names_paper(name):
    doc = inspect.getdoc(inspect.getmodule(CLASSES[name])) or ""
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.|https://", doc)
    assert re.search(r"\b(19|20)\d\d\b", doc)


@all_methods
def test_hyperparameters_have_plain_types_and_defaults_of_that_type(name):
    for p in registry.hyperparameters(CLASSES[name]).values():
        if get_origin(p.annotation) is Literal:
            assert p.default in get_args(p.annotation)
        else:
            assert p.annotation in (bool, int, float, str)
            assert type(p.default) is p.annotation


@all_methods
def test_non_finite_numbers_are_refused_by_name(name):
    for p in registry.hyperparameters(CLASSES[name]).values():
        for value in (math.nan, math.inf, -math.inf) if p.annotation is float else ():
            with pytest.raises(ValueError, match=rf"^{p.name} must be .*, got {value}$"):
                CLASSES[name](make_task(), **{p.name: value})


@all_cases
@pytest.mark.parametrize("C", [2, 10, 1000])
def test_finite_at_extreme_logits(name, params, C):
    task = make_task(C=C)
    method = ready(name, params, task)
    index = torch.arange(8)
    logits = torch.zeros(8, C)
    logits[0, 0], logits[1, 1], logits[2] = 200.0, -200.0, 200.0
    logits[3, task.labels[3]], logits[4, task.labels[4]] = 200.0, -200.0
    logits[5] = -200.0
    logits[5, task.labels[5]] = 200.0  # a gap of 400: probabilities are 0 and 1 exactly
    logits[6] = 200.0
    logits[6, task.labels[6]] = -200.0
    logits[7] = torch.linspace(-200, 200, C)
    for _ in range(3):
        loss, grad = value_and_grad(method, logits, make_batch(task, index))
        assert loss.isfinite()
        assert grad.isfinite().all()


@all_cases
def test_a_batch_of_one_gets_a_gradient(name, params):
    task = make_task()
    loss, grad = value_and_grad(ready(name, params, task), torch.randn(1, 10), make_batch(task, torch.tensor([3])))
    assert loss.isfinite()
    assert grad.abs().sum() > 0


@all_cases
def test_autocast_does_not_coarsen_the_loss(name, params):
    task, logits = make_task(), make_logits(16, 10, "late").float()
    batch = make_batch(task, torch.arange(16))
    method = ready(name, params, task)
    again = copy.deepcopy(method)
    plain = value_and_grad(method, logits, batch)
    with torch.autocast("cpu", torch.bfloat16):
        inside = value_and_grad(again, logits, batch)
    assert inside[0].dtype == torch.float32
    torch.testing.assert_close(inside, plain, rtol=1e-6, atol=1e-7)


@all_cases
def test_given_tensors_are_left_alone(name, params):
    task = make_task()
    method = ready(name, params, task)
    logits, index = make_logits(16, 10, "early").float().requires_grad_(), torch.randperm(40)[:16]
    batch = make_batch(task, index)
    before = [t.detach().clone() for t in (logits, batch.labels, index, task.labels)]
    method.loss(logits, batch).mean().backward()
    if method.loss_and_grad is not None:
        method.loss_and_grad(logits.detach(), batch)
    for now, then in zip((logits, batch.labels, index, task.labels), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize(("name", "params"), [case for case in CASES if CLASSES[case[0]].loss_and_grad is not None])
def test_fast_form_equals_the_loss(name, params):
    task = make_task()
    slow = ready(name, params, task)
    fast = copy.deepcopy(slow)
    logits, batch = make_logits(16, 10, "late").float(), make_batch(task, torch.arange(16))
    for _ in range(3):
        loss, grad = value_and_grad(slow, logits, batch)
        rows, dlogits = fast.loss_and_grad(logits, batch)
        torch.testing.assert_close(rows.mean(), loss)
        torch.testing.assert_close(dlogits, grad)
    assert all(torch.equal(a, b) for a, b in zip(slow.buffers(), fast.buffers(), strict=True))


@all_cases
@pytest.mark.parametrize("validation", [True, False])
def test_resumed_training_equals_uninterrupted(name, params, validation):
    def start():
        task = make_task()
        run = make_run(task, validation)
        method = CLASSES[name](task, **params)
        method.prepare(run)
        return method, run

    def state(method, run):
        return {
            "method": method.state_dict(),
            "network": run.networks[0].state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in run.optimisers.items()},
            "step": run.step,
        }

    whole, whole_run = start()
    train(whole, whole_run, range(6))
    assert all(p.isfinite().all() for p in whole_run.networks[0].parameters())

    for stop in (1, 3, 5):
        first, first_run = start()
        train(first, first_run, range(stop))
        file = io.BytesIO()
        torch.save(state(first, first_run), file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        method, run = start()
        method.load_state_dict(saved["method"])
        run.networks[0].load_state_dict(saved["network"])
        for which, optimiser in run.optimisers.items():
            optimiser.load_state_dict(saved["optimisers"][which])
        run.step = saved["step"]
        train(method, run, range(stop, 6))
        for a, b in ((method, whole), (run.networks[0], whole_run.networks[0])):
            assert a.state_dict().keys() == b.state_dict().keys()
            assert all(torch.equal(a.state_dict()[key], b.state_dict()[key]) for key in a.state_dict())


@all_cases
def test_state_alone_decides_the_next_loss(name, params):
    task = make_task()
    run = make_run(task)
    trained = CLASSES[name](task, **params)
    trained.prepare(run)
    train(trained, run, range(5))
    other = CLASSES[name](task, **params)
    other.prepare(make_run(task))
    other.load_state_dict(trained.state_dict())
    logits, batch = make_logits(16, 10, "early").float(), make_batch(task, torch.arange(16))
    a, b = value_and_grad(trained, logits, batch), value_and_grad(other, logits, batch)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


@all_losses
def test_told_nothing_by_default(name):
    task = make_task(told={})
    method = CLASSES[name](task)
    method.prepare(make_run(task))  # reading what it was not told would raise
    assert method.told == ()
    assert method.num_networks == 1


# --- values and gradients against the formulas -------------------------------------------------------------------
# (B,) rows from float64 logits; autograd does the calculus. Each is the paper's general form, not the code's.


def one_hot(labels, C):
    return (labels[:, None] == torch.arange(C)).double()


def softmax(z):
    e = torch.exp(z - z.amax(1, keepdim=True).detach())
    return e / e.sum(1, keepdim=True)


def clipped(z, low=1e-7, high=1 - 1e-7):
    p = softmax(z)
    return torch.where(p < low, torch.full_like(p, low), torch.where(p > high, torch.full_like(p, high), p))


def true_T(C):
    rng = np.random.default_rng(C)
    T = np.eye(C) * 0.6 + 0.4 * rng.dirichlet(np.ones(C), size=C)
    return torch.from_numpy(T)


def ref_ce(z, y):
    return torch.logsumexp(z, 1) - (z * one_hot(y, z.shape[1])).sum(1)


def ref_mae(z, y):
    return (softmax(z) - one_hot(y, z.shape[1])).abs().sum(1) / 2


def ref_bootstrap(z, y, b, soft):
    p = clipped(z)
    own = p if soft else (softmax(z) == softmax(z).amax(1, keepdim=True)).double()
    return -((b * one_hot(y, z.shape[1]) + (1 - b) * own) * p.log()).sum(1)


def ref_gce(z, y, q):
    p_y = (softmax(z) * one_hot(y, z.shape[1])).sum(1)
    return (1 - p_y**q) / q


def ref_truncated(z, y, weights, q=0.7, k=0.5):
    return weights * (ref_gce(z, y, q) - (1 - k**q) / q)


def ref_sl(z, y, alpha, beta, log_zero):
    log_label = (1 - one_hot(y, z.shape[1])) * log_zero
    return alpha * ref_ce(z, y) - beta * (clipped(z, 1e-7, 1.0) * log_label).sum(1)


def ref_forward(z, y, T):
    noisy = torch.einsum("bi,ij->bj", clipped(z), T)
    return -(noisy.log() * one_hot(y, z.shape[1])).sum(1)


def ref_backward(z, y, T):
    loss_of_each_label = -clipped(z).log()
    corrected = torch.linalg.solve(T, loss_of_each_label.T).T
    return (corrected * one_hot(y, z.shape[1])).sum(1)


def ref_elr(z, y, memory, index, beta, lam):
    p = clipped(z, 1e-4, 1 - 1e-4)
    with torch.no_grad():
        memory[index] = beta * memory[index] + (1 - beta) * p / p.sum(1, keepdim=True)
    return ref_ce(z, y) + lam * torch.log(1 - (memory[index] * p).sum(1))


def ref_alr(z, y, memory, index, alpha, lam_e, refining):
    if not refining:
        return ref_ce(z, y)
    p = softmax(z)
    with torch.no_grad():
        memory[index] = alpha * memory[index] + (1 - alpha) * p
    log_p = z - torch.logsumexp(z, 1, keepdim=True)
    return -(memory[index] * log_p).sum(1) - lam_e * (p * log_p).sum(1)


@dataclass
class Formula:
    name: str
    reference: Any
    params: dict[str, Any] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()  # of the clamps in it

    def __str__(self):
        return f"{self.name}{self.params or ''}"


CLIP = (1e-7, 1 - 1e-7)
LN_1E_4 = math.log(1e-4)
FORMULAS = [
    Formula("ce", ref_ce),
    Formula("mae", ref_mae),
    Formula("bootstrap", lambda z, y: ref_bootstrap(z, y, 0.8, soft=False), {}, CLIP),
    Formula("bootstrap", lambda z, y: ref_bootstrap(z, y, 0.95, soft=True), {"kind": "soft"}, CLIP),
    Formula("bootstrap", lambda z, y: ref_bootstrap(z, y, 0.5, soft=True), {"kind": "soft", "soft_b": 0.5}, CLIP),
    Formula("gce", lambda z, y: ref_gce(z, y, 0.7)),
    Formula("gce", lambda z, y: ref_gce(z, y, 1.0), {"q": 1.0}),
    Formula("gce", lambda z, y, index: ref_truncated(z, y, index % 3 > 0), {"truncate": True}),
    Formula("sl", lambda z, y: ref_sl(z, y, 0.1, 1.0, LN_1E_4), {}, (1e-7,)),
    Formula("sl", lambda z, y: ref_sl(z, y, 6.0, 0.1, -4.0), {"alpha": 6.0, "beta": 0.1, "log_zero": -4.0}, (1e-7,)),
    Formula("forward", lambda z, y: ref_forward(z, y, true_T(z.shape[1])), {"T": True}, CLIP),
    Formula("backward", lambda z, y: ref_backward(z, y, true_T(z.shape[1])), {"T": True}, CLIP),
]


def far_from_clamps(logits, bounds, dtype):
    """Rows whose clamp masks are the same in `dtype`. In float32 a probability near 1e-7 carries an error of 1e-5 of
    itself at these logits, and one near 1 an error of 1e-7."""
    p = softmax(logits)
    near = torch.zeros(len(p), dtype=torch.bool)
    for bound in bounds:
        margin = 1e-12 if dtype == torch.float64 else 1e-4 * bound if bound < 0.5 else 2e-7
        near |= ((p - bound).abs() < margin).any(1)
    return ~near


# float64 is the same formula in another order; float32 rounds logits of up to 50 to 4e-6, and so each probability.
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-9, 1e-12), (torch.float32, 1e-4, 1e-6)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [10, 100])
@pytest.mark.parametrize("formula", FORMULAS, ids=str)
def test_loss_and_gradient_match_the_formula(formula, C, stage, dtype, rtol, atol):
    task = make_task(N=80, C=C, told={"T": true_T(C)})
    index = torch.randperm(80, generator=torch.Generator().manual_seed(4))[:64]
    logits = make_logits(64, C, stage)
    if stage == "late":  # four of them surer than 1 - 1e-7, two of which of their label
        logits[:4] = -math.log((C - 1) / 5e-8)
        logits[torch.arange(4), torch.tensor([0, 1, *task.labels[index[2:4]]])] = 0.0
    logits = logits.to(dtype).double()
    keep = far_from_clamps(logits, formula.bounds, dtype)
    assert keep.sum() > 50
    logits, batch = logits[keep], make_batch(task, index[keep])
    method = ready(formula.name, formula.params, task)
    if formula.params.get("truncate"):
        method.weights.copy_(torch.arange(80) % 3 > 0)
    z = logits.clone().requires_grad_()
    rows = formula.reference(z, batch.labels, *([batch.index] if formula.params.get("truncate") else []))
    (expected,) = torch.autograd.grad(rows.mean(), z)
    loss, grad = value_and_grad(method, logits.to(dtype), batch)
    torch.testing.assert_close(loss.double(), rows.mean().detach(), rtol=rtol, atol=atol)
    torch.testing.assert_close(grad.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("C", [10, 100])
@pytest.mark.parametrize(
    ("name", "params", "weight"),
    [
        ("ce", {}, lambda p: torch.ones_like(p)),
        ("gce", {}, lambda p: p**0.7),
        ("gce", {"truncate": True}, lambda p: p**0.7 * (torch.arange(len(p)) % 2)),
        ("sl", {}, lambda p: 0.1 + 9.210340371976182 * p),
        ("mae", {}, lambda p: p),
    ],
)
def test_label_losses_are_one_weight_on_the_gradient_of_ce(name, params, weight, C):
    logits = make_logits(32, C, "early")
    task = make_task(N=32, C=C)
    method = ready(name, params, task)
    if "truncate" in params:
        method.weights.copy_(torch.arange(32) % 2)
    _, grad = value_and_grad(method, logits, make_batch(task, torch.arange(32)))
    p, Y = softmax(logits), one_hot(task.labels, C)
    p_y = (p * Y).sum(1)
    torch.testing.assert_close(grad * 32, weight(p_y)[:, None] * (p - Y), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
def test_ten_steps_of_elr(C, stage):
    task = make_task(N=23, C=C)
    method = ready("elr", {"beta": 0.9, "lam": 7.0}, task)
    memory = torch.zeros(23, C, dtype=torch.float64)
    for step in range(10):
        index = torch.randperm(23, generator=torch.Generator().manual_seed(step))[:17]
        # Much of one direction, so that predictions agree with the memory, as they do late in training.
        logits = make_logits(23, C, stage, seed=99)[index] + make_logits(17, C, "early", seed=step)
        logits = logits.float()
        z = logits.double().requires_grad_()
        rows = ref_elr(z, task.labels[index], memory, index, 0.9, 7.0)
        (expected,) = torch.autograd.grad(rows.mean(), z)
        loss, grad = value_and_grad(method, logits, make_batch(task, index))
        # Late, 1 - <t, p> is down to 1e-4 of 1, where float32 keeps three digits; and so does a mask near its bound.
        rtol, atol = (1e-4, 1e-6) if stage == "early" else (1e-2, 1e-4)
        torch.testing.assert_close(method.targets.double(), memory, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(loss.double(), rows.mean().detach(), rtol=rtol, atol=atol)
        keep = ((softmax(z.detach()) - 1e-4).abs() > 1e-6).all(1)
        torch.testing.assert_close(grad.double()[keep], expected[keep], rtol=rtol, atol=atol)


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
def test_ten_steps_of_alr(C, stage):
    task = make_task(N=23, C=C, epochs=10)
    run = make_run(task)
    method = ready("alr", {"alpha": 0.8, "lam_e": 0.3, "warmup_share": 0.4}, task)
    memory = one_hot(task.labels, C)
    for epoch in range(10):  # a step is an epoch here: the warm-up is epochs 0 to 3
        method.on_epoch_start(run, epoch)
        index = torch.randperm(23, generator=torch.Generator().manual_seed(epoch))[:17]
        logits = make_logits(17, C, stage, seed=epoch).float()
        z = logits.double().requires_grad_()
        rows = ref_alr(z, task.labels[index], memory, index, 0.8, 0.3, refining=epoch >= 4)
        (expected,) = torch.autograd.grad(rows.mean(), z)
        loss, grad = value_and_grad(method, logits, make_batch(task, index))
        torch.testing.assert_close(method.targets.double(), memory, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(loss.double(), rows.mean().detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(grad.double(), expected, rtol=1e-4, atol=1e-6)
        if epoch < 4:
            assert torch.equal(method.targets, one_hot(task.labels, C).float())


# --- values that the authors' own code computed ------------------------------------------------------------------


@pytest.fixture(scope="module")
def official():
    if not VECTORS.exists():
        pytest.skip(f"{VECTORS} is not there")
    with np.load(VECTORS) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


OFFICIAL = [
    # Their one-hot labels are float32 before they are clipped, so that their log 0 is rounded to float32.
    ("sl", {"alpha": 0.1, "beta": 1.0, "log_zero": float(np.log(np.float32(1e-4)))}, "sl_alpha0.1_beta1.0", (10,)),
    ("sl", {"alpha": 6.0, "beta": 0.1, "log_zero": float(np.log(np.float32(1e-4)))}, "sl_alpha6.0_beta0.1", (100,)),
    ("gce", {"q": 0.7}, "gce_q0.7", (10, 100)),
    ("gce", {"truncate": True}, "gce_truncated_q0.7_k0.5_weights0everythird", (10, 100)),
    ("mae", {}, "mae", (10, 100)),
]


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("name", "params", "key", "C"), [(*case, C) for *case, sizes in OFFICIAL for C in sizes])
def test_label_losses_equal_the_authors(official, name, params, key, C, stage):
    values = {k.removeprefix(f"C{C}/{stage}/"): v for k, v in official.items() if k.startswith(f"C{C}/{stage}/")}
    logits, labels = values["logits"], values["labels"]
    B = len(labels)
    method = CLASSES[name](Task(B, C, labels, 6, 1, B), **params)
    if "truncate" in params:
        method.weights.copy_(torch.arange(B) % 3 > 0)
    loss, grad = value_and_grad(method, logits, Batch(logits, labels, torch.arange(B), no_views))
    # Their untruncated GCE clamps p_y at 1e-7, ours does not: below it the loss differs by at most 1e-7 ** q / q.
    clamped = softmax(logits)[torch.arange(B), labels] < 1.1e-6 if key == "gce_q0.7" else torch.zeros(B, dtype=bool)
    assert (~clamped).sum() >= 3
    bound = float(clamped.double().mean()) * 1.1e-6**0.7 / 0.7
    torch.testing.assert_close(loss, values[f"{key}/loss"], rtol=0, atol=1e-12 + bound)
    torch.testing.assert_close(grad[~clamped], values[f"{key}/grad"][~clamped], rtol=0, atol=1e-12)


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [10, 100])
def test_elr_equals_the_authors_over_four_steps(official, C, stage):
    groups = {key.split("/")[2] for key in official if key.startswith(f"C{C}/{stage}/elr_")}
    assert groups
    for group in groups:
        beta, lam = (float(part) for part in re.fullmatch(r"elr_beta(.+)_lam(.+)", group).groups())
        task = make_task(C=C)
        method = CLASSES["elr"](task, beta=beta, lam=lam).double()
        for step in range(4):
            prefix = f"C{C}/{stage}/{group}/step{step}/"
            at = {key.removeprefix(prefix): value for key, value in official.items() if key.startswith(prefix)}
            batch = Batch(at["logits"], at["labels"], at["index"], no_views)
            loss, grad = value_and_grad(method, at["logits"], batch)
            torch.testing.assert_close(loss, at["loss"], rtol=0, atol=1e-12)
            torch.testing.assert_close(grad, at["grad"], rtol=0, atol=1e-12)
            torch.testing.assert_close(method.targets, at["targets_after"], rtol=0, atol=1e-12)


# --- ranges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("alr", {"alpha": 1.0}, "alpha must be in [0, 1), got 1.0"),
        ("alr", {"lam_e": -0.1}, "lam_e must be finite and >= 0, got -0.1"),
        ("alr", {"warmup_share": 1.5}, "warmup_share must be in [0, 1], got 1.5"),
        ("backward", {"max_weight": 1.0}, "max_weight must be finite and above 1, got 1.0"),
        ("backward", {"percentile": 101.0}, "percentile must be in (0, 100], got 101.0"),
        ("backward", {"anchor": "max"}, "anchor must be 'auto', 'percentile' or 'argmax', got 'max'"),
        ("backward", {"warmup_share": 0.0}, "warmup_share must be finite and above 0, got 0.0"),
        ("bootstrap", {"kind": "firm"}, "kind must be 'soft' or 'hard', got 'firm'"),
        ("bootstrap", {"soft_b": 1.1}, "soft_b must be in [0, 1], got 1.1"),
        ("bootstrap", {"hard_b": -0.1}, "hard_b must be in [0, 1], got -0.1"),
        ("elr", {"beta": 1.0}, "beta must be in [0, 1), got 1.0"),
        ("elr", {"beta": -0.1}, "beta must be in [0, 1), got -0.1"),
        ("elr", {"lam": -1.0}, "lam must be finite and >= 0, got -1.0"),
        ("forward", {"percentile": 0.0}, "percentile must be in (0, 100], got 0.0"),
        ("forward", {"anchor": "max"}, "anchor must be 'auto', 'percentile' or 'argmax', got 'max'"),
        ("forward", {"warmup_share": -1.0}, "warmup_share must be finite and above 0, got -1.0"),
        ("gce", {"q": 0.0}, "q must be in (0, 1], got 0.0"),
        ("gce", {"q": 1.1}, "q must be in (0, 1], got 1.1"),
        ("gce", {"k": 1.0}, "k must be in (0, 1), got 1.0"),
        ("gce", {"start_share": 0.0}, "start_share must be in (0, 1], got 0.0"),
        ("gce", {"every_share": 1.1}, "every_share must be in (0, 1], got 1.1"),
        ("sl", {"alpha": -1.0}, "alpha must be finite and >= 0, got -1.0"),
        ("sl", {"beta": -1.0}, "beta must be finite and >= 0, got -1.0"),
        ("sl", {"log_zero": 0.0}, "log_zero must be finite and below 0, got 0.0"),
    ],
)
def test_values_out_of_range_are_refused(name, params, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CLASSES[name](make_task(), **params)


# --- what belongs to one method ----------------------------------------------------------------------------------


def test_soft_bootstrap_differentiates_through_its_own_prediction():
    logits, task = make_logits(16, 10, "early"), make_task(N=16)
    _, grad = value_and_grad(ready("bootstrap", {"kind": "soft"}, task), logits, make_batch(task, torch.arange(16)))
    detached = 0.95 * (softmax(logits) - one_hot(task.labels, 10)) / 16  # cross entropy and nothing else
    assert (grad - detached).abs().max() > 1e-4


def test_mae_is_gce_at_q_1():
    logits, task = make_logits(16, 10, "late"), make_task(N=16)
    batch = make_batch(task, torch.arange(16))
    mae, gce = (value_and_grad(ready(*case, task), logits, batch) for case in (("mae", {}), ("gce", {"q": 1.0})))
    torch.testing.assert_close(mae, gce, rtol=1e-12, atol=1e-15)


def test_alr_without_entropy_keeps_a_fixed_point():
    """With t = p nothing but the entropy term moves the prediction (SELC is ALR at lam_e = 0)."""
    task = make_task(N=16)
    logits, batch = make_logits(16, 10, "early").float(), make_batch(task, torch.arange(16))
    for lam_e, moves in ((0.0, False), (0.1, True)):
        method = ready("alr", {"lam_e": lam_e, "warmup_share": 0.0}, task)
        method.targets.copy_(logits.softmax(1))
        _, grad = value_and_grad(method, logits, batch)
        assert (grad.abs().max() > 1e-5) == moves


@pytest.mark.parametrize(("epochs", "share", "warmup"), [(200, 0.2, 40), (40, 0.2, 8), (2, 0.2, 1), (10, 0.0, 0)])
def test_alr_warmup_scales_with_the_training(epochs, share, warmup):
    task = make_task(epochs=epochs)
    method, run = CLASSES["alr"](task, warmup_share=share), make_run(task)
    phases = []
    for epoch in range(epochs):
        method.on_epoch_start(run, epoch)
        phases.append(float(method.refining))
    assert phases == [0.0] * warmup + [1.0] * (epochs - warmup)


class Fixed(nn.Module):
    """Gives example i the probability `p[i]` for its label, and predicts validation examples right as told."""

    def __init__(self, p, labels, C):
        super().__init__()
        self.p, self.labels, self.C = nn.Parameter(p), labels, C

    def forward(self, rows):
        others = torch.log((1 - self.p) / (self.C - 1))
        logits = others[:, None].repeat(1, self.C)
        return logits.scatter(1, self.labels[:, None], self.p.log()[:, None])[: len(rows)]


def truncated(epochs, validation=None, **params):
    """A truncated GCE, its run, and a network whose p_y is 0.3, 0.49, 0.51, 0.9 for the four examples."""
    labels = torch.tensor([0, 1, 2, 1])
    task = Task(4, 3, labels, epochs, 1, 4)
    network = Fixed(torch.tensor([0.3, 0.49, 0.51, 0.9]), labels, 3)
    run = make_run(task, validation=False, network=network)
    if validation is not None:
        scores = iter(validation)
        run.validate = lambda network: next(scores)
    method = CLASSES["gce"](task, truncate=True, **params)
    method.prepare(run)
    return method, run, network


@pytest.mark.parametrize(
    ("epochs", "params", "refreshed"),
    [
        (120, {}, [40, 50, 60, 70, 80, 90, 100, 110, 120]),  # the authors' schedule on CIFAR-10
        (150, {"start_share": 80 / 150, "every_share": 10 / 150}, [80, 90, 100, 110, 120, 130, 140, 150]),
        (12, {}, list(range(4, 13))),
        (3, {}, [2, 3]),  # not before the first epoch, when p_y is 1/C
        (1, {}, []),
    ],
)
def test_truncation_follows_the_schedule(epochs, params, refreshed):
    method, run, _ = truncated(epochs, **params)
    predicted, seen = run.predict_train, []
    run.predict_train = lambda network: (seen.append(run.epoch + 1), predicted(network))[1]
    for epoch in range(epochs):
        run.epoch = epoch
        method.on_epoch_start(run, epoch)
        expected = [1.0] * 4 if not seen else [0.0, 0.0, 1.0, 1.0]
        assert method.weights.tolist() == expected
        method.on_epoch_end(run, epoch)
    assert seen == refreshed


def test_truncation_keeps_the_weights_where_nothing_would_remain():
    method, run, network = truncated(4, k=0.95)
    for epoch in range(4):
        method.on_epoch_start(run, epoch)
    assert method.weights.tolist() == [1.0] * 4
    network.p.data[3] = 0.96
    method.on_epoch_start(run, 3)
    assert method.weights.tolist() == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("resume_at", [0, 1, 2, 3])
def test_truncation_prunes_by_the_best_network_so_far(resume_at):
    # One score when the method asks whether there is a validation part, then one an epoch: epoch 1 is the best.
    scores = [0.2, 0.6, 0.6, 0.3]
    method, run, network = truncated(4, validation=[0.0, *scores], start_share=1.0)
    by_epoch = [[0.1, 0.1, 0.1, 0.9], [0.9, 0.9, 0.1, 0.1], [0.1, 0.9, 0.9, 0.9], [0.6] * 4]
    for epoch, p in enumerate(by_epoch):
        if epoch == resume_at:
            saved = copy.deepcopy(method.state_dict())
            method, run, network = truncated(4, validation=[0.0, *scores[epoch:]], start_share=1.0)
            method.load_state_dict(saved)
        method.on_epoch_start(run, epoch)
        network.p.data.copy_(torch.tensor(p))
        method.on_epoch_end(run, epoch)
    assert method.weights.tolist() == [1.0, 1.0, 0.0, 0.0]  # refreshed once, at the start of the last epoch
    assert method.best_accuracy == 0.6
    assert network.p.data.tolist() == pytest.approx([0.6] * 4)  # the network in training is left alone


def test_pruned_examples_stay_in_the_mean():
    method, _, _ = truncated(4)
    method.weights.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    logits = torch.log(torch.tensor([[0.8, 0.1, 0.1]] * 4, dtype=torch.float64))
    batch = Batch(logits, torch.zeros(4, dtype=torch.int64), torch.arange(4), no_views)
    expected = ((1 - 0.8**0.7) / 0.7 - (1 - 0.5**0.7) / 0.7) / 4
    assert float(method.loss(logits, batch)) == pytest.approx(expected, rel=1e-12)
    assert expected < 0


# --- T -----------------------------------------------------------------------------------------------------------


def test_estimate_T_by_hand():
    probs = torch.tensor(
        [
            [0.95, 0.05, 0.00],  # largest of column 0
            [0.70, 0.20, 0.10],
            [0.10, 0.85, 0.05],
            [0.05, 0.90, 0.05],  # largest of column 1
            [0.30, 0.10, 0.60],
            [0.20, 0.05, 0.75],  # largest of column 2
        ],
        dtype=torch.float64,
    )
    # The rows' sums are 1 but for rounding.
    torch.testing.assert_close(estimate_T(probs, anchor="argmax"), probs[[0, 3, 5]])
    # Six values: the 97th percentile by the "higher" rule is the largest, which is dropped.
    torch.testing.assert_close(estimate_T(probs, anchor="percentile"), probs[[1, 2, 4]])
    torch.testing.assert_close(estimate_T(probs), probs[[1, 2, 4]])
    torch.testing.assert_close(estimate_T(probs, percentile=100.0), probs[[1, 2, 4]])
    # Percentile 60 of six values is the fourth: 0.30, 0.20, 0.10. The largest below: 0.20, 0.10, 0.05 (first of two).
    torch.testing.assert_close(estimate_T(probs, percentile=60.0), probs[[5, 4, 2]])


def test_estimate_T_of_more_than_20_classes_takes_the_largest():
    for C, drops in ((20, True), (21, False)):
        own = torch.where(torch.arange(2 * C) < C, 0.9, 0.8).double()  # two examples a class
        probs = ((1 - own) / (C - 1))[:, None].repeat(1, C)
        probs[torch.arange(2 * C), torch.arange(2 * C) % C] = own
        assert estimate_T(probs, anchor="argmax").diagonal().tolist() == pytest.approx([0.9] * C)
        assert (estimate_T(probs).diagonal().max() < 0.85) == drops
        assert torch.equal(estimate_T(probs), estimate_T(probs, anchor="percentile" if drops else "argmax"))


def test_estimate_T_divides_rows_and_leaves_the_predictions_alone():
    probs = torch.tensor([[0.5, 0.25], [0.2, 0.6], [0.4, 0.2], [0.1, 0.3]])
    before = probs.clone()
    T = estimate_T(probs, anchor="percentile")
    torch.testing.assert_close(T, torch.tensor([[2 / 3, 1 / 3], [0.25, 0.75]], dtype=torch.float64))
    assert torch.equal(probs, before)


def test_estimate_T_of_equal_predictions():
    assert torch.equal(estimate_T(torch.full((5, 2), 0.5)), torch.full((2, 2), 0.5, dtype=torch.float64))


def test_estimate_T_refuses_a_diverged_network():
    with pytest.raises(ValueError, match=r"^probs must be finite"):
        estimate_T(torch.tensor([[float("nan"), 1.0]]))


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_T_is_estimated_once_for_both_corrections(name):
    task = make_task(N=200, told={}, epochs=7)
    method, run = CLASSES[name](task), make_run(task)
    method.prepare(run)
    assert run.fitted == [("warm-up", 7)]  # one key and length, so that the harness trains one helper for both
    expected = estimate_T(softmax(Helper(task).logits.detach().double()))
    torch.testing.assert_close(method.T, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(method.T.sum(1), torch.ones(10, dtype=torch.float64))
    longer = CLASSES[name](task, warmup_share=2.0)
    longer.prepare(run)
    assert run.fitted[1] == ("warm-up", 14)


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_true_T_is_told_and_marked(name):
    T = true_T(10)
    task = make_task(told={"T": T})
    method, run = CLASSES[name](task, T=True), make_run(task)
    assert method.told == ("T",)
    assert CLASSES[name].told == ()
    method.prepare(run)
    assert torch.equal(method.T, T)
    assert run.fitted == []


def test_corrections_with_the_identity_are_cross_entropy():
    task = make_task(N=16, told={"T": torch.eye(10, dtype=torch.float64)})
    logits, batch = make_logits(16, 10, "early"), make_batch(task, torch.arange(16))
    ce = value_and_grad(ready("ce", {}, task), logits, batch)
    for name in ("forward", "backward"):
        got = value_and_grad(ready(name, {"T": True}, task), logits, batch)
        torch.testing.assert_close(got, ce, rtol=1e-10, atol=1e-14)


def test_backward_loss_goes_below_zero_by_a_known_amount():
    """0.6 on the diagonal of three classes: the inverse has rows (2, -0.5, -0.5)."""
    T = torch.full((3, 3), 0.2, dtype=torch.float64) + 0.4 * torch.eye(3, dtype=torch.float64)
    task = Task(1, 3, torch.tensor([0]), 6, 1, 1, privileged={"T": T})
    method = ready("backward", {"T": True}, task)
    torch.testing.assert_close(method.inverse[0], torch.tensor([2.0, -0.5, -0.5], dtype=torch.float64))
    for gap, log_p in ((12.0, -12.0 - math.log(2 + math.exp(-12.0))), (20.0, math.log(1e-7))):  # the second clips
        logits = torch.tensor([[0.0, 0.0, -gap]], dtype=torch.float64)
        loss, _ = value_and_grad(method, logits, make_batch(task, torch.tensor([0])))
        expected = 1.5 * math.log(2 + math.exp(-gap)) + 0.5 * log_p
        assert float(loss) == pytest.approx(expected, rel=1e-9)
        assert expected < -5


def test_backward_inverts_in_closed_form_for_symmetric_noise():
    C, rate = 10, 0.4
    b = rate / (C - 1)
    a = 1 - rate * C / (C - 1)
    T = a * torch.eye(C, dtype=torch.float64) + b
    method = ready("backward", {"T": True}, make_task(told={"T": T}))
    torch.testing.assert_close(method.inverse, (torch.eye(C, dtype=torch.float64) - b) / a, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rate", [0.9, 0.8999])  # singular, and nearly so
def test_backward_mixes_a_T_it_cannot_invert_well_and_says_so(rate):
    C = 10
    eye = torch.eye(C, dtype=torch.float64)
    T = (1 - rate * C / (C - 1)) * eye + rate / (C - 1)
    method = CLASSES["backward"](make_task(told={"T": T}), T=True, max_weight=50.0)
    with pytest.warns(UserWarning, match=r"above max_weight 50; 4% of the identity was mixed into T"):
        method.prepare(make_run(method.task))
    # With a share m of the identity the inverse's rows sum to about 2 / m: 66 for 3%, 50 less a bit for 4%.
    assert torch.equal(method.T, T)
    torch.testing.assert_close((0.96 * T + 0.04 * eye) @ method.inverse, eye, rtol=0, atol=1e-10)
    assert method.inverse.abs().sum(1).max() <= 50


def test_backward_leaves_a_good_T_alone(recwarn):
    T = true_T(10)
    method = ready("backward", {"T": True}, make_task(told={"T": T}))
    assert torch.equal(method.T, T)
    assert not [w for w in recwarn if "backward" in str(w.message)]
