"""Put into a protocol what the names in it refer to, so that a run's protocol says all of it.

`hf-hub:` and `local-dir:` become an architecture with its arguments and a file of weights, and
`preprocess: weights` the numbers by which images were prepared for these weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from nlbench.data.base import Info
from nlbench.errors import Problem, SuiteError, in_words
from nlbench.plan.protocol import Protocol

if TYPE_CHECKING:
    from nlbench.models import Preprocessing, Reference


def followed(protocol: Protocol, info: Info, base: Path) -> tuple[Protocol, str]:
    """Return the protocol with what its names refer to, and where its weights come from.

    The latter is "hf-hub:OWNER/NAME@COMMIT", and empty for all other weights.

    Args:
        base: the folder that the path of a model counts from.
    Raises: SuiteError with `problems`.
    """
    from nlbench import models

    found: Preprocessing | None = None
    origin = ""
    is_reference = models.is_reference(protocol.model)
    has_tag = protocol.model.startswith("timm/") and "." in protocol.model
    if (is_reference or has_tag) and protocol.weights != "pretrained":
        message = (
            f"must be 'pretrained' for {protocol.model}, which names its weights; for others, name "
            f"the architecture alone, timm/NAME. Got {protocol.weights!r}"
        )
        raise _wrong("weights", message)

    if is_reference:
        try:
            reference = models.look_up(protocol.model, base)
        except SuiteError as error:
            raise _wrong("model", str(error)) from None
        found, origin = reference.preprocessing, reference.origin
        protocol = _with_model(protocol, reference)

    if protocol.preprocess == "weights":
        protocol = _preprocessed(protocol, info, found or _published(protocol))
    return protocol, origin


def _with_model(protocol: Protocol, reference: Reference) -> Protocol:
    """Return the protocol with the model and the weights of a reference."""
    changes = {
        "model": reference.model,
        "model_args": {**reference.args, **protocol.model_args},
        "weights": str(reference.file),
    }
    try:
        # Validated, because the arguments come from a file.
        return Protocol.model_validate({**protocol.model_dump(), **changes})
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"][:2])
        raise _wrong("model", f"{protocol.model}: {where}: {in_words(detail)}") from None


def _published(protocol: Protocol) -> Preprocessing:
    from nlbench import models

    if protocol.weights not in models.PUBLISHED:
        message = (
            "weights is for published weights (weights: imagenet or pretrained); for others, set "
            "mean, std, resize and crop"
        )
        raise _wrong("preprocess", message)
    try:
        return models.preprocessing(protocol.model)
    except SuiteError as error:
        raise _wrong("model", str(error)) from None


def _preprocessed(protocol: Protocol, info: Info, found: Preprocessing) -> Protocol:
    """Fill in those numbers that the protocol leaves open. Sizes are for image files alone."""
    changes: dict[str, object] = {"preprocess": "dataset"}
    if not protocol.mean:
        changes |= {"mean": list(found.mean), "std": list(found.std)}
    if not info.shape:
        crop = protocol.crop or found.crop
        changes |= {"crop": crop, "resize": protocol.resize or found.resize(crop)}
    return protocol.model_copy(update=changes)


def _wrong(key: str, message: str) -> SuiteError:
    return SuiteError(problems=[Problem((key,), message)])
