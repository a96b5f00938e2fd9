"""Trial: one short training of a method, and how it departs from the usual one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nlbench.plan import protocol as protocols
from nlbench.plan.protocol import Protocol

# The usual trial: five steps an epoch, the last of six examples.
N = 70
C = 10
BATCH = 16
EPOCHS = 4


@dataclass(frozen=True)
class Trial:
    """A training to carry out. The defaults are the usual trial; a check names what it varies.

    Attributes:
        num: number of training examples.
        val: whether there is a validation part.
        pixels: whether examples are uint8 images, with augmentation and bfloat16, instead of
            float32 features.
        clean: whether all labels are right and there is no weight decay. Then only the loss changes
            a weight.
        other_clean_labels: whether the clean labels are permuted.
        other_test: whether the test set is another one.
        other_test_labels: whether the labels of the test set are permuted.
        again: a repetition that starts with another state of the global random generators.
        watched: whether a watch is around each hook. If not, the method's own file is trained, and
            the states come from checkpoints.
        twice: whether each epoch is evaluated twice.
        ahead: how many steps before its use each item of the plan is drawn.
        forms: whether loss_and_grad is compared with loss.
        gradients: whether the terms of the gradient are recorded, and compared with the gradient.
        batch: the number of examples in a batch.
        logits: "" for the networks' own outputs. "equal": each network gives 0 for all classes.
            "sure": it gives 120 for its best class and -120 for all others. Gradients pass as if
            the network had given them.
        fresh: whether the method's file is executed again, as in a new process.
        stops: whether the training is stopped after each epoch and continued with new objects, of
            a file that is executed again.
    """

    # Data
    num: int = N
    classes: int = C
    val: bool = False
    pixels: bool = False
    clean: bool = False
    other_clean_labels: bool = False
    other_test: bool = False
    other_test_labels: bool = False

    # Training
    epochs: int = EPOCHS
    seed: int = 0
    again: int = 0

    # Observation
    watched: bool = True
    twice: bool = False
    ahead: int = 0
    forms: bool = False
    gradients: bool = False
    fresh: bool = False
    stops: bool = False
    batch: int = BATCH
    logits: Literal["", "equal", "sure"] = ""

    def protocol(self) -> Protocol:
        """Return the protocol of this trial: a short variant of `digits`."""
        values: dict[str, object] = {"epochs": self.epochs, "batch_size": self.batch}
        if self.clean:
            values["weight_decay"] = 0.0
        if self.pixels:
            values |= {"augment": "crop-flip", "precision": "bfloat16"}
        return protocols.resolve("digits", "digits", values)
