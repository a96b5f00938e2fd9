"""One run, from its RunSpec to its record. The only training loop, read from top to bottom."""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from nlbench.method import Method
from nlbench.plan.spec import RunSpec
from nlbench.process_state import Guard
from nlbench.results.record import MethodFacts, Metrics, RunRecord
from nlbench.results.store import Store
from nlbench.results.summary import summarise
from nlbench.training import evaluate, record
from nlbench.training.capture import CudaRecorder
from nlbench.training.checkpoint import Checkpoint, Progress
from nlbench.training.context import Listener, RunOptions
from nlbench.training.counters import Counters
from nlbench.training.epoch import train_epoch
from nlbench.training.estimate import estimated_noise_rate, needs_estimate
from nlbench.training.examples import example_arrays
from nlbench.training.helper import HelperNetworks
from nlbench.training.measures import test_measures, test_recall
from nlbench.training.opinions import own_arrays, probability_arrays
from nlbench.training.phases import unreached
from nlbench.training.pulse import Pulse, Stopped, current
from nlbench.training.run_data import RunData
from nlbench.training.run_state import NO_BAD_STEP, RunState
from nlbench.training.saver import BeginAgain, Saver
from nlbench.training.seeding import seeded
from nlbench.training.setup import (
    Scored,
    geometry_of,
    machine_settings,
    make_method,
    make_state,
    make_task,
    normalised,
    own_tensor,
    scored_parts,
    uses_whole_steps,
)
from nlbench.training.signs import is_one_class, signs_of
from nlbench.training.step_rules import registered_steps_only
from nlbench.training.weights import save_weights
from nlbench.training.whole_step import whole_steps


def train(
    spec: RunSpec, data: RunData, options: RunOptions, store: Store, listener: Listener
) -> RunRecord:
    """Train one run, evaluate it after every epoch, and write its record.

    If the store has a checkpoint of the run, the training goes on from there.

    Returns: the record. Its status is "done", or "diverged" if a loss or an output was not finite.
    Raises: errors of the method; ProcessChanged if it has changed code, data or streams of the
        process; FitHeld if the run needs a helper network that another process trains and the
        options say not to wait; Stopped if the listener says to stop.
    """
    while True:
        # After that, the checkpoint holds the beginning of the epoch alone.
        with contextlib.suppress(BeginAgain):
            return _train(spec, data, options, store, listener)


def _train(
    spec: RunSpec, data: RunData, options: RunOptions, store: Store, listener: Listener
) -> RunRecord:
    """Do what `train` does. Raises BeginAgain."""
    protocol, device = spec.protocol, options.device
    data = normalised(data, protocol)
    with (
        machine_settings(protocol, device),
        Guard(spec.method, _arrays(data)) as guard,
        contextlib.ExitStack() as rules,
    ):
        # ---- What the run consists of -----------------------------------------------------------
        labels = own_tensor(data.labels, device)
        clean_labels = None if data.clean_labels is None else own_tensor(data.clean_labels, device)

        guard.messages += dict.fromkeys(data.warnings)
        progress = Progress(record.code_of(spec, options), guard.messages)
        task = make_task(data, labels, protocol, device, spec.told)
        scored = scored_parts(data, geometry_of(spec), device)
        helpers = HelperNetworks(spec, options, store, listener)
        if needs_estimate(spec):
            # A constructor may read the rate, so it is estimated before there is a method.
            try:
                without_method = make_state(spec, data, options, task, 0, scored, helpers.fit)
                task.privileged["noise_rate"] = estimated_noise_rate(without_method)
            except evaluate.Diverged as error:
                ended = record.ended(spec, data, options, progress, {}, {}, error)
                store.write(ended, [])
                return ended

        method = make_method(spec, options, task)
        guard.settle("its file or constructor", all_parts=True)
        counters = Counters.of(method, labels, clean_labels, options.record_gradients)
        steps = task.steps_per_epoch
        progress.warnings += unreached(method, spec.params, protocol.epochs, steps)
        state = make_state(spec, data, options, task, method.num_networks, scored, helpers.fit)
        rules.enter_context(registered_steps_only(state))
        guard.accept_settings()
        report = functools.partial(listener.on_step, spec)
        state.pulse = Pulse("run", report, listener, protocol.epochs)
        rules.enter_context(current(state.pulse))
        state.settle, state.settled = guard.settle, guard.is_settled

        path = store.run_dir(spec.key) / "checkpoint.pt"
        tag: dict[str, str | int] = {"seed": spec.seed, "run": spec.key, "code": progress.code}
        checkpoint = Checkpoint(store, path, tag, options.checkpoint_seconds)
        whole = None
        if uses_whole_steps(options, protocol):
            recorder = CudaRecorder(device)
            whole = whole_steps(state, method, counters.active(), recorder)
        take = whole.take if whole else None
        saver = Saver(checkpoint, options, listener, state.pulse)
        try:
            # ---- Before epoch 0 -----------------------------------------------------------------
            # A resumed run prepares again. So everything drawn here comes from its own stream.
            prepare(method, state, helpers, progress)
            guard.settle("prepare")
            if (saved := saver.load()) is not None:
                method.load_state_dict(saved["method"])
                state.load_state_dict(saved)
                progress.load_state_dict(saved)
                counters.load_state_dict(saved["counters"])
                listener.on_resume(spec, len(progress.history), protocol.epochs)
            rules.enter_context(reporting_a_stop(saver, spec, listener))
            rules.enter_context(saver)

            # ---- Epochs -------------------------------------------------------------------------
            for epoch in range(len(progress.history), protocol.epochs):
                kept = {"method": method.state_dict(), **state.state_dict()}
                kept["counters"] = counters.state_dict()
                saver.begin_epoch(epoch, {**kept, **progress.state_dict()})

                began = time.perf_counter()
                # The passes of an evaluation are not part of what a method costs.
                state.passes.active = True
                loss = train_epoch(state, method, epoch, counters.active(), saver, take)
                state.passes.active = False
                began -= saver.take_earlier_seconds()
                if state.bad_step != NO_BAD_STEP:
                    raise evaluate.Diverged("the loss is not finite", epoch, state.bad_step)

                trained = clock(device)
                accuracies, logits = evaluate.evaluate_epoch(method, state, scored)
                metrics: Metrics = {
                    "epoch": epoch,
                    "loss": loss,
                    **accuracies,
                    **counters.take(),
                    **evaluate.target_metrics(method, clean_labels),
                    "seconds": trained - began,
                    "images_per_second": state.examples_per_epoch / (trained - began),
                }
                progress.add(metrics, trained - began, time.perf_counter() - trained)
                predicted = logits["test"].argmax(1)
                progress.one_class.append(is_one_class(predicted, scored["test"].labels))
                listener.on_epoch(spec, epoch, protocol.epochs, metrics)
            guard.settle("training", all_parts=True)

        # ---- Record -----------------------------------------------------------------------------
        except evaluate.Diverged as error:
            # This is a result and not a failure: the run is not tried again.
            predictions = None
            facts = record.method_facts(spec, method, state)
            ended = record.ended(spec, data, options, progress, facts, {}, error)
        else:
            ended, predictions = finish(
                spec,
                data,
                options,
                progress,
                method,
                state,
                scored,
                logits,
                counters,
            )
        guard.require_unchanged()
        if options.save_weights and ended.status == "done":
            save_weights(store, spec, data, progress.code, state, scored["test"])
        saver.close()
        store.write(ended, progress.history, predictions)
        return ended


@contextlib.contextmanager
def reporting_a_stop(saver: Saver, spec: RunSpec, listener: Listener) -> Iterator[None]:
    """Tell the listener where a training goes on that is stopped within a `with` block."""
    try:
        yield
    except Stopped:
        epoch, step = saver.reached
        listener.on_stopped(spec, epoch, spec.protocol.epochs, step)
        raise


def _arrays(data: RunData) -> dict[str, object]:
    """Return the arrays of a run's data that methods must not write to, by name."""
    return {
        "the training images": data.train_images,
        "the given labels": data.labels,
        "the true labels": data.clean_labels,
        "the images of the validation part": data.val_images,
        "the labels of the validation part": data.val_labels,
        "the test images": data.test_images,
        "the test labels": data.test_labels,
    }


def clock(device: torch.device) -> float:
    """Return the time in seconds, after the device has done everything that it was given."""
    # Kernels run after the call that launches them has returned.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def prepare(method: Method, state: RunState, helpers: HelperNetworks, progress: Progress) -> None:
    """Call the method's `prepare`, and keep its warnings and its seconds in `progress`."""
    began, trained_before = time.perf_counter(), helpers.seconds_now
    with seeded(state.seed, "prepare"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        method.prepare(state)

    for warning in caught:
        text = str(warning.message)
        if issubclass(warning.category, UserWarning) and text not in progress.warnings:
            progress.warnings.append(text)
    # Helper networks have their own entry. One that an earlier run has trained counts there with
    # the seconds that it took then.
    elapsed = time.perf_counter() - began
    progress.seconds["prepare"] = elapsed - (helpers.seconds_now - trained_before)
    progress.seconds["fits"] = sum(helpers.seconds.values())


def finish(
    spec: RunSpec,
    data: RunData,
    options: RunOptions,
    progress: Progress,
    method: Method,
    state: RunState,
    scored: Mapping[str, Scored],
    logits: Mapping[str, Tensor],
    counters: Counters,
) -> tuple[RunRecord, dict[str, np.ndarray]]:
    """Return the record of a run that was trained to its end, and the arrays of predictions.npz.

    Args:
        logits: (n, C) of each scored part, after the last epoch.
    Raises: RuntimeError for a method that wrote to the given labels.
    """
    labels = state.task.labels
    if not torch.equal(labels, own_tensor(data.labels, labels.device)):
        raise RuntimeError(
            "the method wrote to task.labels, which is read only: keep corrected labels in a buffer"
        )

    test_labels = scored["test"].labels
    metrics = summarise(progress.history, scored)
    metrics |= test_measures(logits["test"], test_labels)
    predictions = {
        "test": _classes(logits["test"].argmax(1)),
        "test_labels": data.test_labels.astype("int16"),
        "train_index": data.train_index.astype("int32"),
        "labels": data.labels.astype("int16"),
    }
    facts = record.method_facts(spec, method, state)
    images_seen = state.examples_per_epoch * spec.protocol.epochs
    facts["forward_passes"] = state.passes.images / images_seen

    if len(state.networks) > 1:
        # An ensemble must not be compared with one network unawares.
        singles = []
        for network in state.networks:
            accuracies, _ = evaluate.score(network, *scored["test"])
            singles.append(accuracies["accuracy"])
        metrics["single_mean"] = sum(singles) / len(singles)
        metrics["single_best"] = max(singles)

    kept = {part: logits[part] for part in ("test", "val") if part in logits}
    train_logits = None
    # A pass over all training images costs less than an epoch, so it is always made, except where
    # an epoch is a small part of them: predicting a million images is expensive.
    memorisation = counters.memorisation
    if memorisation is not None or not state.epoch_size or options.save_probabilities:
        predict = evaluate.predictor(method, state)
        train_logits = evaluate.predict_all(predict, state.images)
        predictions |= example_arrays(train_logits, labels, counters.losses, data)
        kept["train"] = train_logits
    if memorisation is not None and train_logits is not None:
        everything = torch.arange(len(train_logits), device=train_logits.device)
        memorisation.count(train_logits.argmax(1), everything)
        metrics |= evaluate.shares("final", memorisation)

    signs = signs_of(progress.history, progress.one_class, test_labels, labels, train_logits)
    if signs:
        facts["signs"] = list(signs)
        progress.warnings += [f"training: {words}" for words in signs.values()]

    predictions |= _estimated_matrix(method, data, facts)
    predictions |= probability_arrays(kept, options.save_probabilities)
    if "val_probs" in predictions:
        predictions["val_index"] = data.val_index.astype("int32")
    own, problem = own_arrays(method)
    predictions |= own
    if problem:
        progress.warnings.append(f"method: {problem}")

    recalls = test_recall(logits["test"], test_labels)
    ended = record.ended(spec, data, options, progress, facts, metrics, recall=recalls)
    return ended, predictions


def _estimated_matrix(method: Method, data: RunData, facts: MethodFacts) -> dict[str, np.ndarray]:
    """Return the method's estimate of the transition matrix, if any, and state its error."""
    # A method that estimates it keeps it in a buffer of this name.
    C = data.info.num_classes
    estimate = getattr(method, "T", None)
    if not isinstance(estimate, Tensor) or estimate.shape != (C, C):
        return {}

    matrix = estimate.detach().double().cpu().numpy()
    if data.T is None:
        return {"T": matrix}
    facts["T_mean_absolute_error"] = float(abs(matrix - data.T).mean())
    return {"T": matrix, "T_true": data.T}


def _classes(predicted: Tensor) -> np.ndarray:
    classes: np.ndarray = predicted.cpu().numpy().astype("int16")
    return classes
