"""The interface between a method and nlbench: Task, Batch, Run and the base class Method.

A method file imports torch, this module and `nlbench.ops`, and, where a method is built around
others, as SAM is, the files of those in `nlbench.methods`. Everything else that a method may use of
the benchmark is documented here. The implementation of `Run` is in `nlbench.training.run_state`.

Shapes use these letters: N training examples, B examples in a batch, C classes.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nlbench.contract import returned

# Maps the position in epochs, for example 1.5 in the middle of the second epoch, to a factor on
# the learning rate.
Schedule = Callable[[float], float]


@dataclass
class Task:
    """Describe the training to a method when it is built.

    Attributes:
        num_train: N, the number of examples in the training part. `batch.index` is in [0, N).
        num_classes: C.
        labels: (N,) int64, the given labels of the training part, some of them wrong. Read only.
        epochs: number of epochs of this training.
        steps_per_epoch: number of batches in an epoch of the default plan, see `Method.batches`.
        batch_size: number of examples in a batch, set by the protocol.
        device: the device of the networks and batches.
        privileged: the values of `noise_rate` and `T`, as far as the method declares them in
            `told`. Set by nlbench; a method reads them as `task.noise_rate` and `task.T`.
    """

    num_train: int
    num_classes: int
    labels: Tensor
    epochs: int
    steps_per_epoch: int
    batch_size: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    privileged: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def noise_rate(self) -> float:
        """Return the fraction of wrong labels in the training part, in [0, 1].

        Measured. If the dataset has no true labels, the estimate that its authors published.

        Raises: AttributeError for a method that does not declare "noise_rate" in `told`.
        """
        rate: float = self._privileged("noise_rate")
        return rate

    @property
    def T(self) -> Tensor:
        """Return the measured transition matrix (C, C) float64, T[i, j] = P(given j | true i).

        Raises: AttributeError for a method that does not declare "T" in `told`.
        """
        matrix: Tensor = self._privileged("T")
        return matrix

    def _privileged(self, name: str) -> Any:
        if name not in self.privileged:
            raise AttributeError(
                f"this method was not told {name}: declare it with `told = ({name!r},)`"
            )
        return self.privileged[name]

    def scaled(self, epochs: float, of: float) -> int:
        """Scale a number of epochs that a paper gives for a training of `of` epochs to this one.

        `task.scaled(40, of=200)` is 40 in a training of 200 epochs and 8 in one of 40 epochs. The
        result is at least 1 and at most `epochs`.
        """
        return min(self.epochs, max(1, round(epochs * self.epochs / of)))


class Batch:
    """Hold some training examples with their given labels. Made by `run.batch`.

    Attributes:
        labels: (B,) int64, the given labels.
        index: (B,) int64, positions in the training part, without repeats.

    Args:
        images: the images of view 0, or a function that returns them when they are first used.
        views: returns the images (B, ...) at positions `index` under the k-th augmentation draw.
        strong: as `views`, for the k-th strong augmentation. Default: `views`.
    """

    def __init__(
        self,
        images: Tensor | Callable[[], Tensor],
        labels: Tensor,
        index: Tensor,
        views: Callable[[Tensor, int], Tensor],
        strong: Callable[[Tensor, int], Tensor] | None = None,
    ):
        self._images = images
        self.labels = labels
        self.index = index
        self._views = views
        self._strong = strong or views

    @property
    def images(self) -> Tensor:
        """Return the augmented and normalised images (B, ...) float32, which are view 0.

        Of texts these are the numbers of their words, (B, L) int64; see `Method.mixes_inputs`. If
        the images are files, this waits until they are decoded.
        """
        if not isinstance(self._images, Tensor):
            self._images = self._images()
        return self._images

    def view(self, k: int) -> Tensor:
        """Return the same examples under this epoch's k-th augmentation draw, (B, ...) float32.

        `view(0)` is `images`.
        """
        return self.images if k == 0 else self._views(self.index, k)

    def strong(self, k: int = 0) -> Tensor:
        """Return the same examples under this epoch's k-th strong draw, (B, ...) float32.

        A strong augmentation is AutoAugment's policy for CIFAR-10, then the protocol's crop and
        flip, then a cutout of half the side length. Images in files are cropped and flipped first.
        With the protocol's `strong: randaugment-5` or `randaugment-10` it is crop and flip, then
        two operations of RandAugment and a small grey square. Examples that are not uint8 images
        are returned without augmentation.
        """
        return self._strong(self.index, k)

    def clone(self) -> Batch:
        """Return a batch whose images (view 0), labels and index are copies."""
        return Batch(
            self.images.clone(), self.labels.clone(), self.index.clone(), self._views, self._strong
        )

    def __len__(self) -> int:
        return len(self.index)


# "ce", or a function of (logits (B, C), batch) that returns 0-d or (B,) losses. With `paced` it is
# a function of (logits, batch, epoch).
HelperLoss = Literal["ce"] | Callable[..., Tensor]


class Run(abc.ABC):
    """The part of a training that a method may use. It has no clean label and no test image.

    Attributes:
        task: the method's Task.
        networks: `num_networks` networks, each images (B, ...) float32 -> logits (B, C) float32,
            computed in the protocol's precision.
        epoch: the current epoch, from 0.
        step: the number of training steps before the current one, over the whole run.
    """

    task: Task
    networks: list[nn.Module]
    epoch: int
    step: int

    # ---- Examples -------------------------------------------------------------------------------

    @abc.abstractmethod
    def order(self) -> Tensor:
        """Return this epoch's order of the training examples, int64 on the device.

        It is the same for every method. It holds all N examples; if the protocol's epochs are
        shorter (`batches_per_epoch`), it holds that many, drawn anew for each epoch and balanced by
        given label.
        """

    @abc.abstractmethod
    def part(self) -> Tensor | None:
        """Return the ascending positions (n,) int64 of the examples in this epoch's order.

        None if the order holds all examples.
        """

    @abc.abstractmethod
    def batch(self, index: Tensor, *views: int) -> Batch:
        """Return the training examples at positions `index` (B,) int64 as a Batch.

        Augmentation draws belong to (seed, epoch, view, example) and do not depend on the batch.

        Args:
            views: the views that the step will use, by default 0. Others can still be used; image
                files of the named ones are decoded in advance.
        """

    # ---- Random numbers -------------------------------------------------------------------------

    @abc.abstractmethod
    def generator(self, name: str) -> torch.Generator:
        """Return a new CPU generator seeded by (seed, name, epoch).

        A second call with the same name in the same epoch returns a generator that starts again.
        """

    # ---- Networks and optimisers ----------------------------------------------------------------

    @abc.abstractmethod
    def optimise(
        self,
        params: Iterable[Any],
        factory: Callable[[Iterable[Any]], torch.optim.Optimizer] | None,
        name: str,
        schedule: Schedule | None = None,
    ) -> torch.optim.Optimizer:
        """Register the optimiser `factory(params)` under `name`, and return it.

        Registered optimisers are saved in checkpoints, follow a schedule and are stepped by
        `backward_step`. The networks' own optimisers are registered before `prepare` as "network0",
        "network1", ... Registering a name again replaces that optimiser; the record says so and
        tables mark it.

        An optimiser's position within an epoch counts its own steps. So two networks that are
        trained one after the other each follow the whole schedule.

        Args:
            factory: None for the protocol's optimiser, as the networks have it.
            schedule: maps the position in epochs to a factor on the learning rates that `factory`
                set. Default: the protocol's schedule.
        """

    @abc.abstractmethod
    def restart_schedule(self, name: str, start: int) -> None:
        """Let a registered optimiser follow the protocol's whole schedule from a later epoch on.

        For a network that begins to train there: the schedule is compressed to the epochs from
        `start` to the end. Until then the optimiser has the schedule's first value. Call it in
        `prepare`.

        Args:
            name: of the optimiser.
            start: the epoch, in [0, task.epochs).
        Raises: ValueError for a name that is not registered, or another epoch.
        """

    @abc.abstractmethod
    def forward(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return `network(images)`, (B, C) float32 logits, for the next `backward_step`.

        On a GPU this may replay a captured CUDA graph, with the same results. Gradients are then
        written to memory that the next replay reuses. So call `backward_step` on the result before
        the next `forward` of the same network.
        """

    @abc.abstractmethod
    def backward_step(
        self, loss: Tensor, *names: str, through: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Clear the gradients, differentiate `loss` and step the optimisers `names`.

        Learning rates are set from the schedules before the step. The mean of the losses over the
        epoch is reported. If a loss is not finite, the run ends after this epoch as diverged.

        Args:
            loss: 0-d.
            names: names of registered optimisers. Default: all.
            through: (logits, dlogits), both (B, C): a gradient that is known already. The backward
                pass then starts at `logits`, and `loss` is only reported.
        Raises: ValueError for a name that is not registered.
        """

    @abc.abstractmethod
    def fit(
        self,
        key: str,
        loss: HelperLoss,
        epochs: int,
        *,
        examples: Tensor | None = None,
        held_out: Tensor | None = None,
        keep: Literal["best", "best-accuracy", "last"] = "best",
        scores: Callable[[Tensor], Tensor] | None = None,
        paced: bool = False,
        start: nn.Module | None = None,
    ) -> nn.Module:
        """Train a helper network, and return it in evaluation mode.

        It begins with new weights, which are the same for the same `key`, or with those of `start`.
        By default the weights with the lowest validation loss are kept. That loss is measured on
        the protocol's validation part or, if there is none, on 10% of the training examples, which
        this training holds out. The result is stored beside the records under `key` and everything
        else that it depends on. Its training time counts for each run that uses it.

        Args:
            key: a name for the helper network.
            loss: "ce" is cross entropy with the given labels; all methods with the same `key`,
                `epochs` and choices below share the result. A function of (logits, batch) gives a
                result that belongs to this method and its hyperparameters; of the batch it may use
                the labels only.
            examples: (n,) int64, positions of the examples that it trains on. Default: all that are
                not held out.
            held_out: (m,) int64, positions of the examples that the validation loss is measured on,
                and that it does not train on.
            keep: "best-accuracy" keeps the weights with the highest accuracy on the given labels
                that the validation loss is measured on, the first ones if several have it. "last"
                keeps those of the last epoch whose validation loss is finite.
            scores: maps logits (n, C) to scores (n, C); the predicted label is the one with the
                highest score. Default: the logits. Only for "best-accuracy" and a `loss` that is a
                function.
            paced: whether `loss` also gets the epoch, an int from 0. Only for a function.
            start: a network of the run, or one that `fit` has returned, to go on with: its weights
                and the averages of its batch norms. The optimiser and the schedule begin anew.
                `start` itself does not change.
        Raises: ValueError for choices that do not go together, and for a `start` with other weights
            than the run's networks have.
        """

    # ---- Predictions ----------------------------------------------------------------------------

    @abc.abstractmethod
    def predict_train(self, network: nn.Module, index: Tensor | None = None) -> Tensor:
        """Return the logits (N, C) float32 of `network` on the training examples.

        In evaluation mode, without augmentation and without gradient.

        Args:
            index: (n,) int64, positions of the examples; the result is then (n, C).
        """

    @abc.abstractmethod
    def validate(self, network: nn.Module) -> float | None:
        """Return the accuracy in [0, 1] of `network` on the noisy labels of the validation part.

        None if the protocol has no validation part.
        """


class Method(nn.Module):
    """Base class of methods: a loss and, for methods that need more, any part of the training.

    The keyword arguments after `task` are the hyperparameters that a suite may set. Their
    annotations give their types, and the constructor raises ValueError for a value out of range.

    State is kept in buffers, which checkpoints save. State with one entry per training example is a
    buffer with N rows, indexed by `batch.index`. A buffer `targets` (N, C) is compared with the
    clean labels after each epoch, and stored by `own_labels`. A buffer `T` (C, C) is stored with
    the predictions.

    Order of the calls:

        prepare                                      once, before the first epoch and after a resume
        for each epoch:
            on_epoch_start
            for each item of batches: training_step  which calls loss or loss_and_grad
            on_epoch_end
            predict                                  on the test images, in evaluation mode
        own_labels                                   once, after the last epoch

    With `--record-gradients`, gradient_parts is called after each step that returned logits.

    Attributes:
        told: privileged information that the method uses: "noise_rate", "T". Tables mark it. A
            constructor may set it on the instance, if it depends on a hyperparameter.
        num_networks: number of networks that the benchmark builds and optimises.
        trains_every_epoch: whether each epoch calls `run.backward_step` at least once; if one does
            not, the run ends with an error. A method that may leave out all steps of an epoch sets
            it to False.
        mixes_inputs: whether it adds or interpolates inputs, as mixup does. Such a method cannot
            train on texts, whose inputs are the numbers of words. A constructor may set it on the
            instance, if it depends on a hyperparameter.
        couples_examples: whether the loss of an example is meant to depend on the other examples
            of its batch, as with a selection in the batch. `nlbench check` then leaves out its
            check `pairs`. It changes no number.
        capturable: whether the default training step of this method may be captured as a CUDA graph
            and replayed, with `--whole-steps`. `loss` and `loss_and_grad` then run in Python a few
            times only, so they must do the same in each step of an epoch: they may look at
            `batch.images`, `batch.labels`, `batch.index`, at buffers of the method and at plain
            values that other hooks set. They draw no random numbers but by torch on the device,
            keep buffers where they are, and never wait for the device. It changes no number.
        begins: optional: what the method does only from a later epoch on, and that epoch, counted
            from 0, such as {"MixMatch": 10}. A constructor sets it. A run that ends before says so.
    """

    told: tuple[str, ...] = ()
    num_networks: int = 1
    trains_every_epoch: bool = True
    mixes_inputs: bool = False
    couples_examples: bool = False
    capturable: bool = False
    begins: Mapping[str, int] = {}

    def __init__(self, task: Task):
        super().__init__()
        self.task = task

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of `logits` (B, C) float32: 0-d, or (B,) losses whose mean is taken.

        Called by the default `training_step`, with gradients enabled. It must not write to its
        arguments. A loss of any other shape, and one that has no gradient, ends the run with an
        error.
        """
        raise TypeError(f"{type(self).__name__} has neither loss nor training_step")

    # Optional faster form of `loss`, used instead of it by the default training_step. It gets
    # logits (B, C) without a graph, and returns losses (B,) and dlogits (B, C), the gradient of
    # their mean.
    loss_and_grad: Callable[[Tensor, Batch], tuple[Tensor, Tensor]] | None = None

    def prepare(self, run: Run) -> None:
        """Prepare the training: estimate T, register optimisers, copy a teacher.

        Called before the first epoch. A run that is resumed calls it again, before the state of
        method, networks and optimisers is restored.
        """

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Act before the steps of an epoch: fit a mixture, prune examples, correct labels.

        Called with the method and the networks in training mode.
        """

    def batches(self, run: Run, epoch: int) -> Iterator[Any]:
        """Yield an item for each step of the epoch: a Batch, or a tuple that holds Batches.

        Default: `run.order()` once, in batches of the protocol's size.

        Items may be drawn a few steps before they are used, so that image files are decoded in
        time. Therefore they must not depend on anything that the steps of the same epoch change.
        """
        for index in run.order().split(run.task.batch_size):
            yield run.batch(index)

    def training_step(self, run: Run, *item: Any) -> Tensor | None:
        """Train on one item of `batches`; a tuple is passed as several arguments.

        Returns: the logits (B, C) of the item's first Batch, which are counted for the online
            metrics, or None if there are none.
        """
        batch: Batch = item[0]
        if not isinstance(batch, Batch):
            raise returned.not_a_batch(batch)
        logits = run.forward(run.networks[0], batch.images)

        # A loss of another shape would train too, with another gradient than its author meant.
        if self.loss_and_grad is not None:
            result = self.loss_and_grad(logits.detach(), batch)
            loss, dlogits = returned.mean_of_fast_loss(result, logits)
            run.backward_step(loss, through=(logits, dlogits))
        else:
            loss = returned.mean_loss(self.loss(logits, batch), logits)
            run.backward_step(loss)
        return logits

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        """Act after the steps of an epoch, before its evaluation: move averages, store labels."""

    def predict(self, run: Run, images: Tensor) -> Tensor:
        """Return logits (B, C) for `images` (B, ...) float32, in evaluation mode, without gradient.

        Default: the logits of the only network. A method with several networks has to define how
        they vote.
        """
        if len(run.networks) > 1:
            name = type(self).__name__
            raise TypeError(f"{name} has {len(run.networks)} networks: define predict()")
        return run.networks[0](images)

    def gradient_parts(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor] | None:
        """Return the terms of the last step's gradient, each apart. It changes no number.

        Called with `--record-gradients`, after each training step that returned logits, without
        gradient. history.csv then has, for each term, the mean of its entry at the true class, over
        the correctly labelled examples and over the wrongly labelled ones.

        Args:
            logits: (B, C), what the step returned, computed before it changed the network.
            batch: the item's first Batch. The method's own state is that after the step.
        Returns: (B, C) by a short name, such as "ce" and "regulariser": the derivative of that term
            of each example's loss by the logits, not divided by B. Together they are the derivative
            of the loss. None, if the method does not tell them apart; that is the default.
        """
        return None

    def own_labels(self) -> Tensor | None:
        """Return what the method has come to think of the given labels. It changes no number.

        Kept as `own_score` and `own_label` in predictions.npz, so that suspect labels can be listed
        by it.

        Returns: (N, C), a soft label for each example, whose rows need not sum to 1; or (N,), how
            far each given label is trusted, from 0 to 1; or None, if the method keeps no such
            thing. Of an example with a row of zeros, or with NaN, nothing is known.
            Default: the buffer `targets`, if it is (N, C).
        """
        targets = getattr(self, "targets", None)
        if not isinstance(targets, Tensor):
            return None
        # A buffer of this name may be something else, and then it has another shape.
        shape = self.task.num_train, self.task.num_classes
        return targets if targets.shape == shape else None
