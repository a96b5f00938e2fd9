"""Propose the tries of a row by Optuna's tree-structured Parzen estimator.

Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011, as Optuna has it.
Nothing is stored: the proposals are made again from the accuracies of the tries before, which the
records hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nlbench.errors import SuiteError

# Proposals that were tried already, before any other setting is taken.
_PATIENCE = 100


def places(
    sizes: Sequence[int], tries: int, known: Sequence[float], rng: np.random.Generator
) -> list[int]:
    """Return the places in the grid that were tried, and those to try next, all different.

    The first half of the tries, rounded up, is drawn at random and can be trained at once. Each
    later one is proposed from the accuracies of all before it.

    Args:
        sizes: the number of values of each dimension of the grid, which has at least `tries`
            places. They are counted as `itertools.product` does.
        known: the accuracies of the first tries in [0, 1], -inf where one diverged.
        rng: of this row. All its draws are made here.
    Returns: one place for each of `known`, and then the next ones, `tries` in all at most.
    Raises: SuiteError without Optuna.
    """
    try:
        import optuna
    except ImportError:
        raise SuiteError(
            "tuning.sampler: optuna needs the package optuna, which is not installed: "
            "pip install 'nlbench[optuna]'"
        ) from None

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawn = -(-tries // 2)
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=drawn, seed=int(rng.integers(2**32, dtype=np.uint32))
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    # Where the estimator proposes nothing new, the next of these is taken.
    others = iter(rng.permutation(math.prod(sizes)).tolist())

    picked: list[int] = []
    repeats = 0
    while len(picked) < tries:
        trial = study.ask()
        choice = [trial.suggest_categorical(str(i), range(size)) for i, size in enumerate(sizes)]
        place = int(np.ravel_multi_index(choice, sizes))
        proposed = place not in picked
        if not proposed:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            repeats += 1
            if repeats < _PATIENCE:
                continue
            place = next(other for other in others if other not in picked)

        picked.append(place)
        if len(picked) <= len(known):
            if proposed:
                # A try that diverged is as bad as one that is never right.
                study.tell(trial, max(known[len(picked) - 1], 0.0))
        elif len(picked) >= drawn:
            break
    return picked
