"""Write what each method takes, as nlbench counts it, into methods/costs.csv.

    python tests/benchmarks/kept.py [--methods elr sop]     # the default is all

Each method is trained with its defaults on digits, with 40% symmetric noise, under the protocol
`digits` with the network `linear`, for all epochs. That protocol has no validation part. Nothing
here depends on the machine's speed:

- networks, told: as the method declares them;
- passes: forward passes for each training example and epoch, as in the records;
- helper_passes: the same of helper networks, whose epochs count as further epochs of the run;
- copies: further networks that the method keeps to the end, such as averaged ones;
- bytes_per_example: what it keeps of each training example, with 10 classes.
"""

import argparse
import csv
import dataclasses
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import training
from torch import Tensor, nn

from nlbench import registry, trust
from nlbench.data import catalogue
from nlbench.data.places import Places
from nlbench.method import HelperLoss, Method
from nlbench.plan import protocol as protocols
from nlbench.plan.spec import RunSpec
from nlbench.results.store import Store
from nlbench.training.context import Listener, RunOptions
from nlbench.training.epoch import train_epoch
from nlbench.training.helper import HelperNetworks
from nlbench.training.run_state import RunState
from nlbench.training.seeding import seeded
from nlbench.training.setup import (
    geometry_of,
    machine_settings,
    make_method,
    make_state,
    make_task,
    own_tensor,
    scored_parts,
)

DEVICE = torch.device("cpu")


class Helpers:
    """Trains helper networks as a run does.

    Attributes:
        epochs: how many epochs of all training examples those trained so far have cost.
    """

    def __init__(self, spec: RunSpec, options: RunOptions, store: Store):
        self.epochs = 0.0
        self._nlbench = HelperNetworks(spec, options, store, Listener())

    def fit(
        self, state: RunState, key: str, loss: HelperLoss, epochs: int, **choices: Any
    ) -> nn.Module:
        """Return a trained helper network; see `Run.fit`."""
        examples = choices.get("examples")
        share = 1.0 if examples is None else len(examples) / state.task.num_train
        self.epochs += share * epochs
        return self._nlbench.fit(state, key, loss, epochs, **choices)


def measured(name: str, epochs: int = 40) -> trust.Costs:
    """Train a method with its defaults, and return what it takes."""
    dataset = catalogue.open_dataset("digits", "", Places.of_user(Path()), 0)
    values = {"model": "linear", "epochs": epochs, "precision": "float32", "threads": 1}
    spec, data = training.prepared(dataset, protocols.resolve("digits", "digits", values), name)
    labels = own_tensor(data.labels, DEVICE)

    with tempfile.TemporaryDirectory() as folder, machine_settings(spec.protocol, DEVICE):
        store = Store(folder)
        store.require_writable()
        options = RunOptions(
            devices=(DEVICE,),
            data_dir=Path(folder),
            methods=registry.method_files([]),
            checkpoint_seconds=math.inf,
        )
        task = make_task(data, labels, spec.protocol, DEVICE, spec.told)
        method = make_method(spec, options, task)
        helpers = Helpers(spec, options, store)
        scored = scored_parts(data, geometry_of(spec), DEVICE)
        state = make_state(spec, data, options, task, method.num_networks, scored, helpers.fit)
        with seeded(spec.seed, "prepare"):
            method.prepare(state)
        state.passes.active = True
        for epoch in range(epochs):
            train_epoch(state, method, epoch, [])

    passes = state.passes.images / (state.examples_per_epoch * epochs)
    return trust.Costs(
        networks=method.num_networks,
        told=tuple(method.told),
        passes=round(passes, 2),
        helper_passes=round(helpers.epochs / epochs, 2),
        copies=copies(method, state.networks[0]),
        bytes_per_example=per_example(method, state, task.num_train),
    )


def copies(method: Method, network: nn.Module) -> int:
    """Return how many networks a method keeps, beyond those that the run trains."""
    return sum(isinstance(module, type(network)) for module in method.modules())


def per_example(method: Method, state: RunState, num_train: int) -> int:
    """Return the bytes of each training example in what a checkpoint holds."""
    kept = [*method.state_dict().values()]
    for optimiser in state.optimisers.values():
        for values in optimiser.state_dict()["state"].values():
            kept += [value for value in values.values() if isinstance(value, Tensor)]

    sizes = [value.nbytes for value in kept if num_train in value.shape]
    return sum(sizes) // num_train


def write(found: dict[str, trust.Costs]) -> None:
    """Write the file beside the methods."""
    columns = [field.name for field in dataclasses.fields(trust.Costs)]
    with registry.beside_methods(trust.COSTS).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", *columns])
        for name, one in found.items():
            values = {**vars(one), "told": " ".join(one.told)}
            table.writerow([name, *(f"{values[column]}" for column in columns)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the lines of the methods that were measured. Other lines stay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = registry.method_files([])
    parser.add_argument("--methods", nargs="+", choices=known, metavar="NAME", default=list(known))
    found = trust.costs()
    for name in parser.parse_args(arguments).methods:
        found[name] = measured(name)
        print(name, *found[name].in_words(), sep="; ", file=sys.stderr, flush=True)
    write({name: found[name] for name in known if name in found})


if __name__ == "__main__":
    main()
