"""What names of models and weights refer to: `hf-hub:`, `local-dir:`, and published preprocessing.

Read when a suite is planned, and never while a run trains: a run's protocol holds what was found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlbench.errors import SuiteError
from nlbench.files import user_path

HUB, FOLDER = "hf-hub:", "local-dir:"

_CONFIG = "config.json"
# The first that is there. The second is read by torch.load(weights_only=True).
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Preprocessing:
    """How images were prepared for published weights.

    Attributes:
        mean, std: per channel, of images scaled to [0, 1].
        crop: side of the square that a network sees, in pixels.
        crop_share: that side as a share of the image's short side.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    crop_share: float

    def resize(self, crop: int) -> int:
        """Return the short side of images of which a square of `crop` pixels is seen, as timm."""
        return math.floor(crop / self.crop_share)


@dataclass(frozen=True)
class Reference:
    """A model with its weights, in files as timm writes them.

    Attributes:
        model: "timm/ARCHITECTURE".
        args: its arguments.
        file: the weights.
        origin: "hf-hub:OWNER/NAME@COMMIT"; empty for a folder.
    """

    model: str
    args: Mapping[str, Any]
    file: Path
    preprocessing: Preprocessing
    origin: str = ""


def is_reference(model: str) -> bool:
    """Return whether a model's name says where a model with its weights lies."""
    return model.startswith((HUB, FOLDER))


def look_up(model: str, base: Path) -> Reference:
    """Return what `hf-hub:OWNER/NAME[@REVISION]` or `local-dir:PATH` refers to.

    Files of the hub are downloaded unless they are in the cache of huggingface_hub. A cached one is
    used without asking whether there is a later one. No code in any of them is run.

    Args:
        base: the folder that a relative path counts from.
    Raises: SuiteError where it is not there, or no model of timm.
    """
    if model.startswith(FOLDER):
        folder = user_path(base, model.removeprefix(FOLDER))
        if not (folder / _CONFIG).is_file():
            raise SuiteError(
                f"{folder}: no {_CONFIG} there; it must be a folder as timm.models.save_for_hf "
                "writes it"
            )
        found = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
        if not found:
            raise SuiteError(f"{folder}: none of these is there: {', '.join(_WEIGHTS)}")
        return _reference(folder / _CONFIG, found[0])

    repository, _, revision = model.removeprefix(HUB).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise SuiteError(f"must be {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION, got {model!r}")
    config = _hub_file(repository, revision, _CONFIG)
    # The weights are of the same commit, also if somebody adds one in between.
    commit = config.parent.name
    file = _hub_file(repository, commit, *_WEIGHTS)
    return _reference(config, file, f"{HUB}{repository}@{commit}")


def _reference(config: Path, file: Path, origin: str = "") -> Reference:
    """Read a config.json of timm."""
    try:
        read = json.loads(config.read_text(encoding="utf-8"))
        # Older ones have the values of `pretrained_cfg` beside the architecture.
        about = read.get("pretrained_cfg", read)
        architecture, args = read["architecture"], dict(read.get("model_args") or {})
        found = _from_timm(about)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise SuiteError(f"{config}: no configuration of a timm model ({reason})") from None
    # The data decides these, and the weights say what they fit.
    args = {name: value for name, value in args.items() if name not in ("num_classes", "in_chans")}
    return Reference(f"timm/{architecture}", args, file, found, origin)


def _hub_file(repository: str, revision: str, *names: str) -> Path:
    """Return the first of these files that the repository has, from the cache or downloaded."""
    try:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise SuiteError(
            f"models of {HUB} need huggingface_hub, which is not installed: "
            "pip install 'nlbench[timm]'"
        ) from None

    for name in names:
        found = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=revision or None))
        except LocalEntryNotFoundError as error:
            raise _unreachable(repository, error) from error
        except EntryNotFoundError:
            continue
        # Errors of huggingface_hub and of connections are OSErrors. A name that cannot be one of a
        # repository is a ValueError.
        except (OSError, ValueError) as error:
            raise _unreachable(repository, error) from error
    raise SuiteError(f"{HUB}{repository}: has none of these files: {', '.join(names)}")


def _unreachable(repository: str, error: Exception) -> SuiteError:
    reason = str(error).strip().partition("\n")[0]
    return SuiteError(
        f"{HUB}{repository} is not in the cache of huggingface_hub (HF_HOME) and cannot be "
        f"downloaded: {reason}\n"
        "on a machine with network `nlbench run SUITE --prepare` gets it; or put its "
        f"{_CONFIG} and {_WEIGHTS[0]} into a folder and name that: model: {FOLDER}PATH"
    )


# ---- Preprocessing -------------------------------------------------------------------------------


def preprocessing(package: str, name: str) -> Preprocessing:
    """Return how images were prepared for the published weights of a model of a package.

    Raises: ValueError for a model without them.
    """
    from nlbench.models import _external

    if package == "torchvision":
        published = _external.torchvision_weights(name).transforms()
        crop, resize = published.crop_size[0], published.resize_size[0]
        return Preprocessing(tuple(published.mean), tuple(published.std), crop, crop / resize)
    config = _external.timm_config(name)
    if config is None:
        raise ValueError("timm publishes no weights of it")
    return _from_timm(config.to_dict())


def _from_timm(config: Mapping[str, Any]) -> Preprocessing:
    """Read a `pretrained_cfg`, with the defaults of timm's PretrainedCfg. Raises as `dict` does."""
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    mean, std = (tuple(map(float, config.get(key) or imagenet[key])) for key in ("mean", "std"))
    crop = int(config.get("input_size", (3, 224, 224))[-1])
    return Preprocessing(mean, std, crop, float(config.get("crop_pct") or 0.875))
