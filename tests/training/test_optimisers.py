"""The optimiser of a protocol: its steps, and the rate and the decay of each weight."""

import math

import lab
import pytest
import torch
from stops import train_in_pieces
from sweeps import history, method_file, outcome
from sweeps import sweep as sweep_in
from torch import nn
from torch.nn import functional as F

from nlbench import models, registry
from nlbench.errors import SuiteError
from nlbench.plan.protocol import resolve
from nlbench.training.optimisers import optimiser_of

optim = pytest.importorskip("timm.optim")

ADAMW = {"optimiser": "adamw", "lr": 0.002, "weight_decay": 0.05}
# A vision transformer of two blocks on digits.
VIT = {"model": "timm/test_vit", "model_args": {"img_size": 8, "patch_size": 4}}
COSINE = {"kind": "warmup-cosine", "warmup": 1.0}


def protocol(**overrides):
    return resolve("digits", "digits", {**ADAMW, **overrides})


def groups_of(optimiser, network):
    """Return weight -> (learning rate, weight decay), by the weight's name."""
    names = {id(weight): name for name, weight in network.named_parameters()}
    found = {}
    for group in optimiser.param_groups:
        for weight in group["params"]:
            found[names.pop(id(weight))] = group["lr"], group["weight_decay"]
    assert not names
    return found


# --- Steps against the formula --------------------------------------------------------------------


class Reference:
    """AdamW as Loshchilov and Hutter write it (arXiv:1711.05101, Algorithm 2), in float64.

    Weights with one dimension are not decayed.
    """

    def __init__(self, weights, weight_decay):
        self.weights = [w.detach().clone() for w in weights]
        self.m = [torch.zeros_like(w) for w in weights]
        self.v = [torch.zeros_like(w) for w in weights]
        self.weight_decay, self.steps = weight_decay, 0

    def step(self, gradients, lr):
        self.steps += 1
        for w, m, v, g in zip(self.weights, self.m, self.v, gradients, strict=True):
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g**2)
            up, down = m / (1 - 0.9**self.steps), v / (1 - 0.999**self.steps)
            decay = self.weight_decay if w.ndim > 1 else 0.0
            w -= lr * (up / (down.sqrt() + 1e-8) + decay * w)


def test_steps_of_adamw_are_those_of_the_equation_at_the_rates_of_the_schedule():
    values = protocol(schedule={**COSINE, "start": 0.2, "floor": 0.0005}, epochs=3)
    task = lab.make_task(N=40, epochs=3)
    run = lab.in_float64(lab.make_run(task, schedule=values.factor))
    network = run.networks[0]
    run.optimise(network.parameters(), optimiser_of(values, run.networks), "network0")
    weights = [*network.parameters()]
    assert {w.ndim for w in weights} == {1, 2}
    reference = Reference(weights, 0.05)

    steps = task.steps_per_epoch
    for epoch in range(3):
        run.begin_epoch(epoch)
        for step in range(steps):
            loss = F.cross_entropy(network(run.images.rows[:8]), task.labels[:8])
            gradients = [g.clone() for g in torch.autograd.grad(loss, weights, retain_graph=True)]
            run.backward_step(loss)

            position = epoch + step / steps
            rate = 0.002 * (0.2 + 0.8 * position)
            if position >= 1:
                rate = 0.0005 + 0.0015 * (1 + math.cos(math.pi * (position - 1) / 2)) / 2
            reference.step(gradients, rate)
            for ours, theirs in zip(weights, reference.weights, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_steps_of_adagrad_are_those_of_the_equation():
    """Check w -= lr * g / (sqrt(sum of g^2) + 1e-7), where g has the decay of the weights in it."""
    given = {"optimiser": "adagrad", "lr": 0.01, "weight_decay": 0.1}
    values = resolve("linear", "gaussians", given)
    w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimiser = optimiser_of(values, [])([w])
    wanted, total = w.detach().clone(), torch.zeros(3, dtype=torch.float64)

    for step in range(5):
        w.grad = torch.tensor([0.3, -1.0, 0.0], dtype=torch.float64) * (step - 2)
        g = w.grad + 0.1 * wanted
        total += g**2
        wanted -= 0.01 * g / (total.sqrt() + 1e-7)
        optimiser.step()
        torch.testing.assert_close(w.detach(), wanted, rtol=0, atol=1e-12)


def test_the_default_is_torchs_sgd_with_one_group_that_decays_all_weights():
    network = nn.Linear(3, 2)
    optimiser = optimiser_of(resolve("digits", "digits"), [network])(network.parameters())

    assert type(optimiser) is torch.optim.SGD
    (group,) = optimiser.param_groups
    assert group["params"] == [*network.parameters()]
    wanted = {"lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "fused": True}
    assert {name: group[name] for name in wanted} == wanted


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.6])
def test_groups_are_those_of_timm(name, layer_decay):
    network = models.build(f"timm/{name}", 5, (3, 64, 64))
    skipped = getattr(network, "no_weight_decay", set)()
    if layer_decay == 1:
        theirs = optim.param_groups_weight_decay(network, 0.05, no_weight_decay_list=skipped)
    else:
        theirs = optim.param_groups_layer_decay(
            network, 0.05, no_weight_decay_list=skipped, layer_decay=layer_decay
        )
    expected = {}
    for group in theirs:
        for weight in group["params"]:
            expected[id(weight)] = 0.002 * group.get("lr_scale", 1.0), group["weight_decay"]

    make = optimiser_of(protocol(layer_decay=layer_decay), [network])
    found = groups_of(make(network.parameters()), network)

    assert found == {name: expected[id(w)] for name, w in network.named_parameters()}
    if name == "test_vit":
        assert found["pos_embed"][1] == found["cls_token"][1] == 0


def test_sgd_decays_all_weights_of_all_layers():
    network = models.build("timm/test_vit", 5, (3, 160, 160))
    values = resolve("digits", "digits", {"lr": 0.1, "layer_decay": 0.5, "weight_decay": 0.01})
    optimiser = optimiser_of(values, [network])(network.parameters())
    assert type(optimiser) is torch.optim.SGD

    found = groups_of(optimiser, network)
    assert {decay for _, decay in found.values()} == {0.01}
    assert found["head.weight"][0] == 0.1
    assert found["patch_embed.proj.bias"][0] == 0.1 * 0.5 ** max(models.distances(network).values())


def test_a_methods_own_layers_have_the_rate_of_the_classifier():
    network = models.build("timm/test_vit", 5, (3, 160, 160))
    head = nn.Linear(4, 3)
    make = optimiser_of(protocol(layer_decay=0.5), [network])
    found = groups_of(make(head.parameters()), head)
    assert found == {"weight": (0.002, 0.05), "bias": (0.002, 0.0)}


def test_what_a_group_sets_itself_counts():
    network, head = nn.Linear(4, 3), nn.Linear(4, 3)
    groups = [
        {"params": network.parameters(), "lr": 0.5},
        {"params": head.weight, "weight_decay": 0.2},
        {"params": [head.bias], "weight_decay": 0.3},
    ]
    optimiser = optimiser_of(protocol(), [network])(groups)
    both = nn.ModuleList([network, head])
    assert groups_of(optimiser, both) == {
        "0.weight": (0.5, 0.05),
        "0.bias": (0.5, 0.0),
        "1.weight": (0.002, 0.2),
        "1.bias": (0.002, 0.3),
    }


def test_a_schedule_multiplies_the_rate_of_each_group():
    values = protocol(layer_decay=0.5, schedule={**COSINE, "start": 0.25}, epochs=4)
    network = models.build("timm/test_vit", 4, (3, 160, 160))
    task = lab.make_task(N=40, epochs=4)
    run = lab.make_run(task, networks=[network], schedule=values.factor)
    optimiser = run.optimise(network.parameters(), optimiser_of(values, [network]), "network0")
    before = groups_of(optimiser, network)

    run.begin_epoch(0)
    run.count_step("network0")
    for name, (rate, decay) in groups_of(optimiser, network).items():
        assert (rate, decay) == (pytest.approx(0.25 * before[name][0]), before[name][1])


@pytest.mark.parametrize("model", ["digits_cnn", "torchvision/resnet18"])
def test_models_whose_layers_have_no_order_are_refused(model):
    network = models.build(model, 10, (1, 8, 8) if model == "digits_cnn" else (3, 32, 32))
    with pytest.raises(SuiteError, match="does not say in which order its layers come"):
        optimiser_of(protocol(layer_decay=0.5), [network])


# --- Runs -----------------------------------------------------------------------------------------

SHORT = {"subset": 200, "batch_size": 32, "epochs": 2, **ADAMW}


def test_a_stopped_run_of_adamw_with_layers_ends_with_the_same_bits(tmp_path):
    options = {**SHORT, **VIT, "subset": 100, "layer_decay": 0.7, "schedule": COSINE}
    whole = sweep_in(tmp_path / "whole", {"elr": {}}, **options)
    steps = train_in_pieces(whole, every=10**9).steps
    pieces = sweep_in(tmp_path / "pieces", {"elr": {}}, **options)
    stopper = train_in_pieces(pieces, every=3)

    assert outcome(pieces) == outcome(whole)
    # No step was taken twice, so each resume went on within its epoch.
    assert (stopper.steps, stopper.stopped) == (steps, [(0, 3), (1, 2)])


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("sam", "cdr", "promix") else pytest.param(name, marks=pytest.mark.methods)
        for name, file in registry.method_files().items()
        if file.module.startswith("nlbench.methods.")
    ],
)
def test_every_method_trains_with_adamw(tmp_path, name):
    options = {**SHORT, "subset": 1000} if name == "incv" else SHORT
    sw = sweep_in(tmp_path, {name: {}}, **options)
    sw.run()
    assert sw.failures() == []
    assert sw.store.read(sw.specs[0].key).status == "done"


def test_helper_networks_have_the_protocols_optimiser(tmp_path):
    source = """
        class Helps(Method):
            def prepare(self, run):
                self.helper = [run.fit("one", "ce", 1)]

            def loss(self, logits, batch):
                return F.cross_entropy(logits, batch.labels)

            def predict(self, run, images):
                return self.helper[0](images)
    """
    folder = method_file(tmp_path, "helps", source)
    accuracies = {}
    for optimiser in ("sgd", "adamw"):
        options = {**SHORT, "optimiser": optimiser, "weight_decay": 0.0, "epochs": 1}
        sw = sweep_in(tmp_path / optimiser, {"helps": {}}, methods_dir=folder, **options)
        sw.run()
        assert sw.failures() == []
        accuracies[optimiser] = history(sw.store, sw.specs[0].key)[0]["test_accuracy"]
    assert accuracies["sgd"] != accuracies["adamw"]
