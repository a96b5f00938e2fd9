"""Parts of PES: which layers are late, their new weights, and the weights of classes."""

import pytest
import torch
from cases import Wrapped
from torch import nn

from nlbench import models
from nlbench.ops.pes import balanced_weights, late_parts, start_afresh

# ---- Which layers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "shape", "first", "parts"),
    [
        # A block of 64 channels, the classifier.
        ("resnet8", (3, 32, 32), "5", 2),
        ("resnet18", (3, 32, 32), "9", 3),
        ("resnet34", (3, 32, 32), "16", 4),
        ("preact_resnet18", (3, 32, 32), "9", 3),
        # A convolution of 512 channels, batch norm, a residual pair, the classifier.
        ("resnet9", (3, 32, 32), "12", 4),
        ("resnet9_slim", (3, 32, 32), "12", 4),
        # A convolution of 128 channels, batch norm, two dense layers.
        ("cnn3", (3, 32, 32), "8", 4),
        ("digits_cnn", (1, 8, 8), "4", 4),
        ("torchvision/resnet18", (3, 32, 32), "layer4.0", 3),
        ("torchvision/resnet50", (3, 32, 32), "layer4.0", 4),
    ],
)
def test_the_late_layers_of_each_model(model, shape, first, parts):
    body = models.build(model, 10, shape)
    names = {id(module): name for name, module in body.named_modules()}
    found = late_parts(Wrapped(body), "stage")

    assert (names[id(found[0])], len(found)) == (first, parts)
    (classifier,) = late_parts(Wrapped(body), "classifier")
    assert classifier is found[-1]
    assert isinstance(classifier, nn.Linear)
    assert classifier.out_features == 10

    assert_ends_the_network(found, body)


def assert_ends_the_network(late, body):
    """Check that `late` has the last parameters of `body`, without a gap, and not all of them."""
    late_parameters = [id(p) for p in nn.ModuleList(late).parameters()]
    everything = [id(p) for p in body.parameters()]

    assert 0 < len(late_parameters) < len(everything)
    assert set(everything[-len(late_parameters) :]) == set(late_parameters)


@pytest.mark.parametrize("model", sorted({*models.names()} - {*models.text_models()}))
def test_the_late_layers_of_every_model_of_ours_end_it(model):
    body = models.build(model, 10, (1, 8, 8) if model == "digits_cnn" else (3, 32, 32))
    weighted = [part for part in body.children() if next(part.parameters(), None) is not None]

    # The one layer of `linear` is all of it.
    if len(weighted) > 1:
        assert_ends_the_network(late_parts(Wrapped(body), "stage"), body)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 3)
        ),
    ],
)
def test_the_classifier_alone_where_there_is_no_last_stage(network):
    assert late_parts(network, "stage") == [network[-1]]


# ---- New weights ---------------------------------------------------------------------------------


def test_starting_afresh_leaves_the_global_generator_alone():
    layer = nn.Linear(2, 2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    start_afresh([layer], torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(3), expected)


def test_new_weights_are_those_of_the_layers_own_reset():
    parts = [nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))]
    for part in parts:
        for tensor in part.state_dict().values():
            tensor.fill_(7)
    start_afresh(parts, torch.Generator().manual_seed(3))

    torch.manual_seed(3)
    expected = nn.Conv2d(1, 2, 3), nn.Linear(4, 3)
    assert torch.equal(parts[0].weight, expected[0].weight)
    assert torch.equal(parts[1][1].bias, expected[1].bias)
    assert parts[1][0].running_mean.tolist() == [0.0] * 4
    assert parts[1][0].weight.tolist() == [1.0] * 4


# ---- Weights of classes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [
        # The mean size is 4 of classes of 6, 4 and 2.
        ([6, 4, 2], 3.0, [4 / 6, 1.0, 2.0]),
        ([6, 4, 2], 1.5, [4 / 6, 1.0, 1.5]),
        # An empty class does not count in the mean.
        ([6, 0, 2], 3.0, [4 / 6, 0.0, 2.0]),
        ([0, 0, 0], 3.0, [0.0, 0.0, 0.0]),
    ],
)
def test_a_class_weighs_the_mean_size_over_its_own(sizes, most, expected):
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    weights = balanced_weights(labels, 3, most)
    assert weights.dtype == torch.float64
    assert weights.tolist() == pytest.approx(expected)
