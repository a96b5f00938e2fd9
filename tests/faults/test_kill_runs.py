"""A short form of `kill_runs.py`, and the bookkeeping that it relies on."""

import random
from collections import Counter

import kill_runs
import many_processes
import pytest
from bookkeeping import Books, finished, results
from fault_kinds import END, RECORD, START, TRAINING, WRITING, Pace, draw
from small_suite import Call, Suite

from nlbench.plan.spec import key_of
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

SPECS = [{"method": "ce", "params": {}, "seed": seed} for seed in range(3)]
KEYS = [key_of(spec) for spec in SPECS]


@pytest.mark.story
def test_a_suite_survives_some_kills(tmp_path):
    session = kill_runs.kill(tmp_path, faults=10, minutes=1.0, seed=15, suite=Suite(seeds=1))

    print(session.text())
    assert session.problems == []
    assert all(session.passes)
    # On a slow machine there are fewer than ten, but without any nothing was tested.
    assert any(fault.is_signal for fault in session.faults)


@pytest.mark.nightly
def test_processes_at_once_train_each_run_once(tmp_path):
    report, problems = many_processes.compare(tmp_path, [1, 3])

    print(report)
    assert problems == []


def test_a_seed_and_a_number_decide_what_happens_to_a_call():
    pace = Pace(start=4.0, run=0.5)
    plans = [draw(random.Random(f"1 {n}"), n, small_disk=True, pace=pace) for n in range(100)]
    again = [draw(random.Random(f"1 {n}"), n, small_disk=True, pace=pace) for n in range(100)]

    assert plans == again
    assert sum(plan.jobs == 2 for plan in plans) == 50
    moments = Counter(fault.moment for plan in plans for fault in plan.faults)
    assert set(moments) == {START, TRAINING, RECORD, WRITING, END}
    assert moments[RECORD] > 20


# ---- The bookkeeping -----------------------------------------------------------------------------


def write(store, number, last=0.5):
    """Write a finished run into a store."""
    record = RunRecord(
        key=KEYS[number],
        status="done",
        spec=SPECS[number],
        metrics={"last": last},
        noise={},
        timing={},
        environment={},
        method={},
        code="c",
    )
    history = [{"epoch": 0, "loss": 1.5, "seconds": 0.1, "images_per_second": 100.0}]
    store.write(record, history, {"test": [1, 2]})


@pytest.fixture
def store(tmp_path):
    """Return a store with two finished runs."""
    made = Store(tmp_path / "store")
    write(made, 0)
    write(made, 1)
    return made


@pytest.fixture
def books(store):
    """Return books that have seen that store, and nothing wrong in it."""
    made = Books(store.root, results(store.root, set(KEYS[:2])))
    made.look()
    assert made.problems == []
    return made


def test_books_see_a_run_that_is_lost(store, books):
    (store.run_dir(KEYS[1]) / "record.json").unlink()
    books.look()
    assert (books.lost, books.doubled, books.unequal) == (1, 0, 0)


def test_books_see_a_file_that_has_changed(store, books):
    (store.run_dir(KEYS[1]) / "history.csv").write_text("epoch,loss\n0,1.6\n")
    books.look()
    assert books.lost == 1


def test_books_see_a_record_that_is_written_again(store, books):
    write(store, 1)
    books.look()
    assert (books.lost, books.doubled) == (0, 1)


def test_books_see_a_second_training_in_what_a_call_has_listed(tmp_path, books):
    (tmp_path / "ends").write_text(f"{KEYS[0]} done -\n{KEYS[0]} done done\n")
    books.look(Call(process=None, log=tmp_path))
    assert books.doubled == 1


def test_books_see_another_result(store, books):
    books.reference = {**books.reference, KEYS[2]: results(store.root, {KEYS[1]})[KEYS[1]]}
    write(store, 2, last=0.6)
    books.look()
    assert books.unequal == 1


def test_books_do_not_ask_for_a_run_that_the_test_has_damaged(store, books):
    (store.run_dir(KEYS[1]) / "record.json").write_text("{}")
    books.damaged.add(KEYS[1])
    books.look()
    assert books.problems == []
    # From now on it counts again.
    store.set_aside(store.run_dir(KEYS[1]) / "record.json", "damaged")
    write(store, 1)
    books.look()
    (store.run_dir(KEYS[1]) / "record.json").unlink()
    books.look()
    assert books.lost == 1


@pytest.mark.parametrize(
    "name",
    [
        "runs/.probe",
        f"runs/{KEYS[0]}/checkpoint.pt",
        f"runs/{KEYS[0]}/.new.12-34.tmp",
        "fits/0123456789abcdef.going.pt",
        "suites/.faults.json.12-34.tmp",
        "fits/0123456789abcdef.pt.corrupt-1",
    ],
)
def test_books_see_what_is_left_over(store, books, name):
    assert books.leftovers() == []
    path = store.root / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert len(books.leftovers()) == 1


def test_books_see_a_lock_that_names_a_process(store, books):
    (store.run_dir(KEYS[0]) / "lock").write_text("host 12\n")
    assert books.leftovers() == [f"runs/{KEYS[0]}/lock names a process"]


def test_a_run_whose_files_wait_to_be_moved_is_finished(store):
    folder = store.run_dir(KEYS[0])
    before = finished(store.root)[KEYS[0]]
    (folder / ".new").mkdir()
    for name in ("predictions.npz", "record.json"):
        (folder / name).rename(folder / ".new" / name)
    assert finished(store.root)[KEYS[0]] == before
