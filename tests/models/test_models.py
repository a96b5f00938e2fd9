"""Every model of the folder, and models of other packages."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nlbench import models
from nlbench.errors import SuiteError

# All other models take images of CIFAR's shape.
SHAPES = {"digits_cnn": (1, 8, 8), "mnist_mlp": (1, 28, 28)}
IMAGE_MODELS = [name for name in models.names() if name not in models.text_models()]

# Numbers of parameters for ten classes, as the sources of the models give them.
PARAMETERS = {
    "resnet8": 78_042,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    # The common implementation, and the batch norm of the stem.
    "preact_resnet18": 11_171_146 + 2 * 64,
    "resnet9": 6_573_130,
    "resnet9_slim": 103_954,
    "cnn3": 1_147_690,
    "cnn8": 1_639_794,
    "cnn3_slim": 553_626,
    "digits_cnn": 151_402,
    "linear": 3 * 32 * 32 * 10,
    "mnist_mlp": 784 * 128 + 128 * 128 + 128 * 10 + 128 + 128 + 10,
    # Two hidden layers without bias, two batch norms, and the classifier.
    "mlp": 3072 * 256 + 256 * 256 + 4 * 256 + 257 * 10,
}


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_model(name):
    shape = SHAPES.get(name, (3, 32, 32))
    torch.manual_seed(0)
    network = models.build(name, 7, shape)
    images = torch.randn(3, *shape)
    logits = network(images)

    assert logits.shape == (3, 7)

    logits.logsumexp(1).sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0

    # Without training an image's logits do not depend on the other images of the batch.
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
        one_by_one = torch.cat([network(image[None]) for image in images])
        torch.testing.assert_close(network(images), one_by_one, rtol=1e-4, atol=1e-5)

    torch.manual_seed(0)
    again = models.build(name, 7, shape)
    torch.manual_seed(0)
    third = models.build(name, 7, shape)

    for a, b in zip(again.parameters(), third.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_other_shapes(name):
    network = models.build(name, 3, (2, 16, 24)).eval()
    assert network(torch.zeros(1, 2, 16, 24)).shape == (1, 3)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_count(name, count):
    network = models.build(name, 10, SHAPES.get(name, (3, 32, 32)))
    assert sum(p.numel() for p in network.parameters()) == count


def test_cifar_resnets_keep_the_resolution_of_the_stem():
    """Check the sizes: an ImageNet stem would give the first block 8x8."""
    for name in ("resnet8", "resnet18", "resnet34", "preact_resnet18"):
        x = torch.zeros(1, 3, 32, 32)
        sizes = []
        for module in models.build(name, 10, (3, 32, 32)).eval():
            x = module(x)
            sizes.append(tuple(x.shape[2:]))
        assert sizes[:4] == [(32, 32)] * 4
        assert (8, 8) in sizes


def test_preact_resnet_ends_without_activation():
    torch.manual_seed(0)
    network = models.build("preact_resnet18", 10, (3, 32, 32)).eval()
    stem = nn.Sequential(*list(network)[:3])
    last = nn.Sequential(*list(network)[:-3])
    images = torch.randn(2, 3, 32, 32)

    # Batch norm and ReLU follow the first convolution, but not the last block.
    assert stem(images).min() >= 0
    assert last(images).min() < 0

    block = network[3]
    identity_input = torch.randn(1, 64, 8, 8)
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)

    # Without its convolutions only the activated shortcut of a block is left.
    torch.testing.assert_close(block(identity_input), block.bn1(identity_input).relu())


def test_cnn8_is_the_network_of_the_papers_and_starts_as_their_code_does():
    torch.manual_seed(0)
    network = models.build("cnn8", 10, (3, 32, 32))
    weights = [m.weight.detach() for m in network if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert [len(w) for w in weights] == [64, 64, 128, 128, 196, 196, 256, 10]

    # He's uniform start for convolutions and Glorot's for the rest, which reach close to the bound.
    for w in weights:
        fan_in = w[0].numel()
        bound = (6 / fan_in) ** 0.5 if w.ndim == 4 else (6 / (fan_in + len(w))) ** 0.5
        assert 0.99 * bound < float(w.abs().max()) <= bound

    x = torch.zeros(2, 3, 32, 32)
    convolutions, found = 0, []
    for module in network:
        x = module(x)
        convolutions += isinstance(module, nn.Conv2d)
        if isinstance(module, nn.MaxPool2d):
            found.append((convolutions, *x.shape[1:]))
    assert found == [(2, 64, 16, 16), (4, 128, 8, 8), (6, 196, 4, 4)]


def test_resnet9_halves_the_image_three_times_and_adds_two_residual_pairs():
    torch.manual_seed(0)
    network = models.build("resnet9", 10, (3, 32, 32)).eval()
    x = torch.randn(1, 3, 32, 32)
    sizes, residual = [], []

    for module in network:
        if hasattr(module, "inner"):
            residual.append(tuple(x.shape[1:]))
            torch.testing.assert_close(module(x), x + module.inner(x))
        x = module(x)
        sizes.append(tuple(x.shape[1:]))

    assert residual == [(128, 16, 16), (512, 4, 4)]
    assert list(dict.fromkeys(sizes))[:5] == [
        (64, 32, 32),
        (128, 32, 32),
        (128, 16, 16),
        (256, 16, 16),
        (256, 8, 8),
    ]
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == 9


def test_linear_starts_at_zero_and_has_no_bias():
    network = models.build("linear", 2, (5, 1, 1))
    (weight,) = network.parameters()

    assert weight.shape == (2, 5)
    assert not weight.any()

    nn.init.normal_(weight)
    images = torch.randn(3, 5, 1, 1)

    torch.testing.assert_close(network(images), images.flatten(1) @ weight.T)


WITHOUT_TORCH = """
import sys
from nlbench import models

models.names()
models.check("resnet34")
print("torch" in sys.modules)
"""


def test_names_are_described_and_listed_without_torch():
    assert set(PARAMETERS) <= set(models.names())
    for line in models.names().values():
        assert line.endswith(".")

    command = [sys.executable, "-c", WITHOUT_TORCH]
    out = subprocess.run(command, capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "False"


def test_model_file():
    assert models.model_file("resnet34").name == "resnet.py"
    assert models.model_file("torchvision/resnet34") is None
    with pytest.raises(SuiteError, match="unknown model"):
        models.model_file("resnet35")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "resnet43",
            (3, 32, 32),
            r"unknown model 'resnet43'. There are: cnn3, .*Did you mean 'resnet34'\?",
        ),
        ("resnet", (3, 32, 32), r"and torchvision/NAME, timm/NAME\."),
        ("keras/resnet34", (3, 32, 32), r"unknown model 'keras/resnet34'"),
        (
            "torchvision/resnet43",
            (3, 32, 32),
            r"torchvision has \d+ models, .*Did you mean 'torchvision/resnet34'\?",
        ),
        ("torchvision/", (3, 32, 32), r"unknown model 'torchvision/'"),
        (
            "torchvision/resnet18",
            (1, 32, 32),
            r"^model torchvision/resnet18: .* take 3 channels, got 1",
        ),
        (
            "torchvision/vit_b_16",
            (3, 32, 32),
            r"^model torchvision/vit_b_16: cannot take .* \(3, 32, 32\): ",
        ),
        ("cnn3", (3, 7, 32), r"^model cnn3: needs images of at least 8x8, got 7x32"),
        ("cnn3_slim", (3, 32, 7), r"^model cnn3_slim: needs images of at least 8x8, got 32x7"),
        ("cnn8", (3, 7, 32), r"^model cnn8: needs images of at least 8x8, got 7x32"),
        ("resnet9", (3, 32, 7), r"^model resnet9: needs images of at least 8x8, got 32x7"),
        ("digits_cnn", (1, 1, 8), r"^model digits_cnn: needs images of at least 2x2, got 1x8"),
        ("resnet8", (64,), r"^model resnet8: needs .* got 10 classes and shape \(64,\)"),
        ("linear", (20, 50), r"^model linear: takes no texts. There are, for texts: lstm"),
        ("timm/resnet18", (20, 50), r"^model timm/resnet18: takes no texts. There are, for texts:"),
        ("lstm", (1, 8, 8), r"^model lstm: is for texts, and these examples are none"),
    ],
)
def test_errors(name, shape, message):
    with pytest.raises(SuiteError, match=message):
        models.build(name, 10, shape)


def test_one_class_and_pretrained_own_models_are_refused():
    with pytest.raises(SuiteError, match="got 1 classes"):
        models.build("resnet8", 1, (3, 32, 32))
    with pytest.raises(SuiteError, match="model resnet8 has no published weights"):
        models.build("resnet8", 10, (3, 32, 32), weights="imagenet")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "googlenet"])
def test_torchvision_models_get_our_classifier(name):
    network = models.build(f"torchvision/{name}", 7, (3, 64, 64))
    assert network.training
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 7)


def test_torchvision_weights_are_taken_over_but_for_the_classifier(monkeypatch):
    import torchvision

    torch.manual_seed(0)
    published = torchvision.models.resnet18(weights=None)
    real = torchvision.models.get_model
    asked = []

    def get_model(name, weights=None, **options):
        asked.append(weights)
        return real(name, weights=None, **options) if weights is None else published

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    network = models.build("torchvision/resnet18", 7, (3, 64, 64), weights="imagenet")

    assert [str(weights) for weights in asked if weights] == ["ResNet18_Weights.IMAGENET1K_V1"]
    # All but the classifier, which is for another number of classes, has the published weights.
    for key, value in network.state_dict().items():
        if not key.startswith("fc."):
            assert torch.equal(value, published.state_dict()[key])
    assert network.fc.weight.shape == (7, 512)


def test_timm_models_get_our_classifier_and_channels():
    pytest.importorskip("timm")
    network = models.build("timm/resnet18", 7, (1, 32, 32))
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    message = r"timm has \d+ models, .*Did you mean 'timm/inception_resnet_v2'\?"
    with pytest.raises(SuiteError, match=message):
        models.check("timm/inception_resnetv2")


def test_timm_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SuiteError, match=r"pip install 'nlbench\[timm\]'"):
        models.check("timm/resnet18")


def test_a_broken_timm_is_not_called_missing(monkeypatch):
    from nlbench.models import _external

    def broken(name):
        raise ModuleNotFoundError("No module named 'huggingface_hub'", name="huggingface_hub")

    monkeypatch.setattr(_external, "importlib", SimpleNamespace(import_module=broken))
    with pytest.raises(ModuleNotFoundError, match="huggingface_hub"):
        models.check("timm/resnet18")


# ---- Options -------------------------------------------------------------------------------------


def test_options_behind_the_name_reach_the_model():
    network = models.build("mlp-width=5-depth=3-dropout=1e-1", 4, (7, 1, 1))
    widths = [m.out_features for m in network if isinstance(m, nn.Linear)]
    assert widths == [5, 5, 5, 4]
    assert [m.p for m in network if isinstance(m, nn.Dropout)] == [0.1] * 3
    assert models.model_file("mlp-width=5").name == "mlp.py"

    plain = models.build("mlp-width=8-depth=1-batch_norm=false", 3, (4, 1, 1))
    assert sum(p.numel() for p in plain.parameters()) == 5 * 8 + 9 * 3
    linear = models.build("mlp-depth=0", 3, (4, 1, 1))
    assert [tuple(p.shape) for p in linear.parameters()] == [(3, 4), (3,)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mlp-widht=5", "widht: unknown key. It takes: width (256), depth (2), dropout (0.0)"),
        ("mlp-widht=5", "Did you mean 'width'?"),
        ("mlp-width=5.5", "width must be a whole number, got '5.5'"),
        ("mlp-batch_norm=yes", "batch_norm must be true or false, got 'yes'"),
        ("mlp-width=5-width=6", "width is given twice"),
        ("mlp-dropout=1", "dropout in [0, 1)"),
        ("linear-width=5", "width: unknown key. It takes: nothing"),
        ("mpl-width=5", "Did you mean 'mlp'?"),
    ],
)
def test_wrong_options_are_refused(name, words):
    with pytest.raises(SuiteError) as caught:
        models.build(name, 3, (4, 1, 1))
    assert words in str(caught.value)


def test_a_last_batch_of_one_example_trains_the_mlp():
    network = models.build("mlp", 3, (4, 1, 1))
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(torch.randn(1, 4, 1, 1)).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in network.named_buffers())
    network(torch.randn(2, 4, 1, 1)).sum().backward()
    assert not torch.equal(
        before["2.running_mean"], dict(network.named_buffers())["2.running_mean"]
    )
