"""The record of one run: everything that is kept of it apart from its history and predictions.

A record is stored as JSON. Its parts are plain dictionaries here, too, with the keys and types that
the classes below state: a part keeps the order of its keys, and keys that this version of nlbench
does not know. Every key may be missing, because a run that failed has none of them and an older
version may not have had it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Required, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    with_config,
)
from typing_extensions import TypedDict

from nlbench.results.schema import brought_up

# The version of a record's JSON. Version 1 is that of nlbench 0.1, which does not write it down.
SCHEMA = 1

# From a version to the function that brings a record of it to the next version.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

# A number written as text is no number: whoever computes with it would fail.
_STRICT = ConfigDict(strict=True)

# Accuracies and shares in [0, 1], epochs counted from 0, and numbers of images. None for a share of
# nothing. The keys
# are open: a dataset may name further test sets. results.metrics lists those that tables know.
Metrics = dict[str, int | float | None]


@with_config(_STRICT)
class _ProtocolFacts(TypedDict, total=False):
    name: str
    model: str


@with_config(_STRICT)
class SpecFacts(TypedDict, total=False):
    """What tables and other commands read of RunSpec.identity(), which holds more."""

    method: Required[str]
    dataset: str
    labels: str
    protocol: _ProtocolFacts
    seed: Required[int]
    told: dict[str, int | float | str]


@with_config(_STRICT)
class NoiseFacts(TypedDict, total=False):
    """The training labels: what was asked for, what was measured, and how many there are."""

    asked_rate: int | float | None
    redrawn: bool
    noise_rate_full: float | None
    noise_rate_train: float | None
    noise_rate_val: float | None
    # Training examples whose true label is known, where it is not known of all. The rates, and the
    # shares of right and memorised labels, are measured on them.
    num_known: int
    labels_hash: str
    # The published estimate that a method is given where nobody can measure the rate.
    estimated_rate: float | None
    num_train: int
    num_val: int
    num_test: int
    # How the images differ from the official ones: "JPEG", or empty.
    variant: str
    checksums: dict[str, str]


@with_config(_STRICT)
class ClassFacts(TypedDict, total=False):
    """The classes, in the order of their numbers.

    `names` is empty where the dataset's files do not name them. `train` and `test` count the
    images of each class: those of the training part by their given labels, and the test images.
    """

    num_classes: int
    names: list[str]
    train: list[int]
    test: list[int]
    # Of the test images of each class, the share that is predicted right after the last epoch. None
    # for a class without test images.
    recall: list[float | None]
    # Of a folder: what was left out of it, and what is odd in it. `warnings` has it as well.
    data_warnings: list[str]


@with_config(_STRICT)
class Timing(TypedDict, total=False):
    """Seconds by part of the run. `fits` is the training of helper networks."""

    prepare: float
    fits: float
    train: float
    evaluate: float


@with_config(_STRICT)
class Environment(TypedDict, total=False):
    """Versions, hardware and settings that are not part of the run's key."""

    nlbench: str
    python: str
    torch: str
    numpy: str
    platform: str
    device: str
    device_name: str
    threads: int
    precision: str
    compile: bool
    cuda_graphs: bool
    # Later than version 0.1.
    whole_steps: bool
    jobs: int
    ops: str
    # The CPU: its name, the instructions of nlbench's kernels ("avx2") and of torch ("AVX2"), and
    # whether torch computes with oneDNN. Records of version 0.1 have none of these.
    processor: str
    kernels: str
    cpu_capability: str
    mkldnn: bool
    # Which file of published weights the network began with, or empty.
    weights: str
    # The machine that trained the run, in a job of Slurm or on Ray.
    node: str


@with_config(_STRICT)
class MethodFacts(TypedDict, total=False):
    """Facts about the method: its privileged information, its networks and its estimates."""

    # Names of the privileged information that the method was given, such as "noise_rate".
    told: list[str]
    # The noise rate that the suite gave, or had estimated, in place of the measured one.
    told_noise_rate: float
    networks: int
    # Networks whose optimiser the method replaced by its own.
    own_optimisers: list[str]
    # Forward passes for each training example and epoch, without those of helper networks.
    forward_passes: float
    T_mean_absolute_error: float
    # Signs that the training did not work, such as "one-class"; see results.notes. Absent without.
    signs: list[str]


@with_config(_STRICT)
class RunError(TypedDict, total=False):
    """The reason why a run is not done.

    A diverged run has epoch and step, a failed one its traceback. Where memory was short, or the
    process was killed, it has the most memory that it had, in bytes.
    """

    message: str
    epoch: int
    step: int
    traceback: str
    peak_memory: int
    peak_gpu_memory: int


Part = TypeVar("Part")


def _checked(value: Part, check: ValidatorFunctionWrapHandler) -> Part:
    """Check the types of the known keys, and return the value itself, with its further keys."""
    check(value)
    return value


_CHECKED = WrapValidator(_checked)

# The further keys of a spec are read, too, so that it has the type of any dictionary.
if TYPE_CHECKING:
    _Spec = dict[str, Any]
else:
    _Spec = Annotated[SpecFacts, _CHECKED]


class RunRecord(BaseModel):
    """One run that ended.

    Attributes:
        status: "done"; "diverged", if a loss or an output was not finite; "failed", if it raised.
        spec: RunSpec.identity(), whose hash is `key`.
        metrics: empty unless the run is done.
        code: hash of the code that the numbers depend on.
        error: of a run that is not done.
    """

    # A record of a later version may have more keys.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    key: str
    status: Literal["done", "diverged", "failed"]
    spec: _Spec
    metrics: Annotated[Metrics, _CHECKED]
    noise: Annotated[NoiseFacts, _CHECKED]
    timing: Annotated[Timing, _CHECKED]
    environment: Annotated[Environment, _CHECKED]
    method: Annotated[MethodFacts, _CHECKED]
    code: str
    classes: Annotated[ClassFacts, _CHECKED] = ClassFacts()
    warnings: list[str] = []
    error: Annotated[RunError | None, _CHECKED] = None

    def as_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads back."""
        # Copies, so that what a caller changes in them does not change the record.
        values = {name: copy.deepcopy(getattr(self, name)) for name in type(self).model_fields}
        # Added in version 0.2. Left out when empty, so that earlier records keep their bytes.
        if not self.classes:
            del values["classes"]
        # Version 1 does not write its number, so its records stay those of nlbench 0.1.
        if SCHEMA > 1:
            values["schema"] = SCHEMA
        return values

    @classmethod
    def from_json(cls, text: bytes) -> RunRecord:
        """Read a record of this version of nlbench or of an earlier one.

        Raises: ValueError for text that is not a record, LaterVersion.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> RunRecord:
        """Make a record of the values of its JSON object. Raises as `from_json`."""
        return cls.model_validate(migrate(values))

    @property
    def error_message(self) -> str:
        """The message of a run that is not done, else an empty string."""
        return self.error.get("message", "") if self.error else ""

    @property
    def error_type(self) -> str:
        """The name of the exception's class of a failed run, else an empty string."""
        # The message of a failed run begins with it, see `training.record.failed`.
        return self.error_message.partition(": ")[0] if self.status == "failed" else ""

    def columns(self) -> dict[str, Any]:
        """Return the record as one flat line of a data frame; see `nlbench.load`."""
        spec, environment = self.spec, self.environment
        protocol, noise = spec.get("protocol", {}), spec.get("noise")
        line: dict[str, Any] = {
            "key": self.key,
            "status": self.status,
            "method": spec["method"],
            "dataset": spec.get("dataset", ""),
            "labels": spec.get("labels", ""),
            "noise": noise.get("kind", "") if isinstance(noise, dict) else "",
            "seed": spec["seed"],
            "protocol": protocol.get("name", ""),
            "model": protocol.get("model", ""),
            "params": spec.get("params", {}),
        }
        line.update(self.metrics)
        line.update(self.noise)
        line.update({f"seconds_{name}": seconds for name, seconds in self.timing.items()})
        line.update(self.method)
        if "num_classes" in self.classes:
            line["num_classes"] = self.classes["num_classes"]

        for name in ("device", "device_name", "precision", "torch"):
            line[name] = environment.get(name, "")
        line["error"] = self.error_message
        return line


def migrate(values: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a record as the present version has it; `values` may be changed.

    Raises: LaterVersion, ValueError for a version that is none.
    """
    return brought_up(values, f"the record {values.get('key')}", SCHEMA, MIGRATIONS)
