"""Features of models of timm and torchvision, with their own transforms."""

import hashlib
import json
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from nlbench.embedding.extractors import extractor
from nlbench.embedding.patches import Settings
from nlbench.errors import SuiteError

timm = pytest.importorskip("timm")

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 40, 30, 3)).astype(np.uint8)


def features(model, weights):
    made = extractor(model, str(weights), Settings(), "cpu")
    return made, made(PIXELS, np.array([4, 0, 2]))


def test_timm_models_get_pictures_by_timms_own_transform(tmp_path):
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    made, found = features("timm/test_resnet", tmp_path / "weights.pth")

    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    pixels = torch.stack([transform(Image.fromarray(PIXELS[i])) for i in (4, 0, 2)])
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)

    assert made.record["transform"] == json.loads(json.dumps(config))
    sha256 = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    assert made.record["weights"] == {"file": str(tmp_path / "weights.pth"), "sha256": sha256}


def test_torchvision_models_get_pictures_by_the_transform_of_their_weights(tmp_path):
    from torchvision import models

    torch.manual_seed(1)
    model = models.shufflenet_v2_x0_5(num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    _, found = features("torchvision/shufflenet_v2_x0_5", tmp_path / "weights.pth")

    transform = models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.transforms()
    pixels = torch.stack([transform(Image.fromarray(PIXELS[i])) for i in (4, 0, 2)])
    model.fc = torch.nn.Identity()
    with torch.no_grad():
        np.testing.assert_allclose(found, model(pixels).numpy(), rtol=1e-4, atol=1e-5)


def test_drawn_weights_are_the_same_in_each_call_and_leave_the_generator_alone():
    torch.manual_seed(5)
    first = features("timm/test_resnet", "none")[1]
    after = torch.rand(1)
    torch.manual_seed(6)
    np.testing.assert_array_equal(first, features("timm/test_resnet", "none")[1])
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_published_weights_that_cannot_be_reached_name_the_file(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SuiteError, match="cannot be downloaded") as refusal:
        extractor("timm/resnet18", "", Settings(), "cpu")
    assert str(refusal.value).splitlines()[1:] == [
        "get model.safetensors of https://huggingface.co/timm/resnet18.a1_in1k on a machine with "
        "network, and name the file: --weights FILE"
    ]


def test_weights_of_torchvision_that_cannot_be_reached_name_the_file(monkeypatch, tmp_path):
    def no_network(*args, **options):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    with pytest.raises(SuiteError, match=r"cannot be downloaded: .*no network") as refusal:
        extractor("torchvision/resnet18", "", Settings(), "cpu")
    assert str(refusal.value).splitlines()[1:] == [
        "get https://download.pytorch.org/models/resnet18-f37072fd.pth on a machine with network, "
        "and name the file: --weights FILE"
    ]


def test_a_model_of_the_hub_that_cannot_be_reached_may_lie_in_a_folder(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SuiteError, match="cannot be downloaded") as refusal:
        extractor("hf-hub:owner/name", "", Settings(), "cpu")
    assert str(refusal.value).splitlines()[1:] == [
        "put its config.json and model.safetensors, from a machine with network, into a folder, "
        "and name that: --model local-dir:PATH"
    ]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("torchvision/squeezenet1_1", "has no linear classifier"),
        ("torchvision/resnet81", "Did you mean 'torchvision/resnet18'|none of that name"),
        ("torch/resnet18", "unknown model"),
    ],
)
def test_models_that_have_no_features_are_refused(model, message):
    with pytest.raises(SuiteError, match=message):
        extractor(model, "none", Settings(), "cpu")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(SuiteError, match="--device cuda:99: cannot be used here"):
        extractor("timm/test_resnet", "none", Settings(), "cuda:99")


def test_a_folder_that_timm_has_saved_has_its_own_transform(tmp_path):
    torch.manual_seed(2)
    model = timm.create_model("test_vit", num_classes=7).eval()
    model.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "interpolation": "nearest", "crop_pct": 0.5}
    timm.models.save_for_hf(model, tmp_path)
    made, found = features(f"local-dir:{tmp_path}", "")

    config = timm.data.resolve_model_data_config(model)
    assert (config["mean"], config["crop_pct"]) == ((0.1, 0.2, 0.3), 0.5)
    transform = timm.data.create_transform(**config, is_training=False)
    pixels = torch.stack([transform(Image.fromarray(PIXELS[i])) for i in (4, 0, 2)])
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert made.record["weights"]["file"] == str(tmp_path / "pytorch_model.bin")
