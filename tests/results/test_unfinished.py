"""What a table says of a suite that still runs."""

import os

import pytest
from made_stores import made_store, plan_of, write_run

from nlbench.results import table, unfinished


@pytest.fixture
def store(tmp_path):
    """Return a store whose suite has eight runs, of which four are done."""
    made = made_store(tmp_path / "store", ("ce", "elr"), (0, 1))
    made.write_plan(plan_of("made", ("ce", "elr"), (0, 1, 2, 3)))
    return made


def keys_of(store, seed):
    return [cell["key"] for cell in store.plan("made")["cells"] if cell["seed"] == seed]


def rendered(store, **options):
    return table.render(store.plan("made"), store, **options)


def test_missing_runs_are_counted(store):
    assert "- 4 of the suite's 8 runs are missing.\n" in rendered(store)
    assert "<li>4 of the suite&#x27;s 8 runs are missing.</li>" in rendered(store, fmt="html")
    assert "4 of the suite's 8 runs are missing." in rendered(store, fmt="json")


def test_runs_in_training_are_counted_with_the_process_that_trains_them(store):
    first, second = keys_of(store, 2)
    with store.lock(first), store.lock(second):
        (note,) = unfinished.note(store.plan("made"), store)
    assert note.startswith("4 of the suite's 8 runs are missing; 2 runs are being trained now, by ")
    assert note.count(f"process {os.getpid()} of the host ") == 1

    # Nobody holds them any more.
    assert unfinished.note(store.plan("made"), store) == ["4 of the suite's 8 runs are missing."]


def test_a_failed_run_counts_only_while_it_is_trained_again(store):
    for seed in (2, 3):
        for method in ("ce", "elr"):
            status = "failed" if (method, seed) == ("ce", 3) else "done"
            error = {"message": "KeyError: 'x'"} if status == "failed" else None
            write_run(store, method, seed, status=status, error=error)
    assert unfinished.note(store.plan("made"), store) == []

    with store.lock(keys_of(store, 3)[0]):
        (note,) = unfinished.note(store.plan("made"), store)
    assert note.startswith("0 of the suite's 8 runs are missing; 1 run is being trained now, by ")


def test_a_complete_suite_has_no_such_note_even_while_it_is_trained_again(store):
    store.write_plan(plan_of("made", ("ce", "elr"), (0, 1)))
    alone = rendered(store)
    with store.lock(keys_of(store, 0)[0]):
        assert rendered(store) == alone
    assert "missing" not in alone
