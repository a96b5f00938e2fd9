"""Shards: together they are the plan, they are balanced, and nothing but the plan decides them."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import hypothesis
import pytest
from hypothesis import strategies as st
from sweeps import suite

from nlbench import api, code_hash
from nlbench.errors import SuiteError
from nlbench.plan.options import parse_shard
from nlbench.plan.protocol import resolve
from nlbench.plan.shards import Shard, divide, others
from nlbench.plan.spec import Condition, RunSpec
from nlbench.results.record import RunRecord

PROTOCOL = resolve("digits", "digits", {})


def plan(rows, conditions, seeds, precision="float32"):
    """Return the runs of a made-up suite in the order of a plan: seed, condition, row."""
    protocol = PROTOCOL.model_copy(update={"precision": precision})
    specs = []
    for seed in range(seeds):
        for number in range(conditions):
            condition = Condition(f"data{number}", "clean", None)
            for row in range(rows):
                specs.append(RunSpec(f"row{row}", f"row{row}", {}, condition, "f", protocol, seed))
    return specs


def keys(specs):
    return [spec.key for spec in specs]


SIZES = st.integers(1, 5)


@hypothesis.settings(max_examples=25)
@hypothesis.given(rows=SIZES, conditions=SIZES, seeds=SIZES, count=st.integers(1, 12))
def test_together_the_shards_are_the_plan_and_each_run_is_in_one(rows, conditions, seeds, count):
    specs = plan(rows, conditions, seeds)
    divided = divide(specs, count)

    assert len(divided) == count
    # Compared as objects, because each key has to be computed.
    places = {id(spec): place for place, spec in enumerate(specs)}
    dealt = [[places[id(spec)] for spec in shard] for shard in divided]
    assert sorted(itertools.chain(*dealt)) == list(range(len(specs)))
    for shard in dealt:
        # In the order of the plan, so that every method has a result early.
        assert shard == sorted(shard)

    for number in range(1, count + 1):
        rest = [places[id(spec)] for spec in others(divided, number)]
        assert sorted(rest + dealt[number - 1]) == list(range(len(specs)))


@hypothesis.settings(max_examples=25)
@hypothesis.given(rows=SIZES, conditions=SIZES, seeds=SIZES, count=st.integers(1, 12))
def test_the_runs_of_each_row_and_condition_are_spread(rows, conditions, seeds, count):
    divided = divide(plan(rows, conditions, seeds), count)

    sizes = [len(shard) for shard in divided]
    assert max(sizes) - min(sizes) <= 1
    for name in ("row", "condition"):
        for value in {getattr(spec, name) for shard in divided for spec in shard}:
            counts = [sum(getattr(spec, name) == value for spec in shard) for shard in divided]
            # An even share, and rarely two above it.
            assert max(counts) <= math.ceil(sum(counts) / count) + 2


def test_no_shard_gets_all_of_the_expensive_data_or_method():
    # Dealt one by one, two shards would get a dataset each.
    for shard in divide(plan(rows=8, conditions=2, seeds=1), 2):
        assert sorted(Counter(spec.condition.dataset for spec in shard).values()) == [4, 4]
    for shard in divide(plan(rows=4, conditions=1, seeds=4), 4):
        assert len({spec.row for spec in shard}) == 4


def test_with_a_shard_for_each_seed_the_rows_of_a_seed_come_together():
    # They may share a helper network, for which then no shard waits.
    for shard in divide(plan(rows=3, conditions=2, seeds=5), 5):
        assert len({spec.seed for spec in shard}) == 1


def test_machines_whose_runs_have_other_keys_divide_alike():
    here = divide(plan(3, 2, 3), 4)
    there = divide(plan(3, 2, 3, precision="bfloat16"), 4)
    for one, other in zip(here, there, strict=True):
        assert keys(one) != keys(other)
        assert [(s.row, s.condition, s.seed) for s in one] == [
            (s.row, s.condition, s.seed) for s in other
        ]


def test_a_run_that_has_two_rows_is_in_one_shard():
    specs = plan(rows=2, conditions=1, seeds=1)
    assert sum(map(len, divide([*specs, replace(specs[0], row="again")], 2))) == 2


def test_the_state_of_the_store_moves_no_run(tmp_path):
    def prepared(shard):
        given = suite({"ce": {}, "gce": {}}, seeds=(0, 1))
        return api.prepare(given, out=tmp_path / "out", device="cpu", shard=shard)

    before = prepared(Shard(1, 2))
    assert len(before.own) == 2
    # A finished run, and one that has failed.
    done, failed = (spec.key for spec in before.specs[:2])
    write_record(before, before.specs[0], "diverged")
    write_record(before, before.specs[1], "failed")
    after = [prepared(Shard(number, 2)) for number in (1, 2)]
    assert after[0].own == before.own

    # What is done is to do for nobody. What has failed is tried again by its own shard alone.
    for sw in after:
        todo = keys(sw.state.todo)
        assert done not in todo
        assert (failed in todo) == (failed in sw.own)
        mine = len([key for key in todo if key in sw.own])
        assert set(todo[:mine]) <= sw.own

    alone = prepared(Shard(1, 2, leftovers=False))
    assert set(keys(alone.state.todo)) <= alone.own


def write_record(sw, spec, status):
    """Write a record as a run of this code would."""
    code = code_hash.code_hash(
        sw.methods[spec.method].path,
        spec.protocol.model,
        spec.condition.dataset,
        spec.condition.noise_kind,
    )
    record = RunRecord(
        key=spec.key,
        status=status,
        spec=spec.identity(),
        metrics={},
        noise={},
        timing={},
        environment={"device": "cpu", "precision": "float32"},
        method={},
        code=code,
    )
    sw.store.require_writable()
    sw.store.write(record, [])


@pytest.mark.parametrize("text", ["2/8", " 2 / 8 ", "02/8"])
def test_a_shard_is_read(text):
    assert parse_shard(text) == Shard(2, 8)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", r"--shard '': write the number of the shard and how many there are, as 2/8"),
        ("2", "--shard '2': write the number"),
        ("-1/8", "--shard '-1/8': write the number"),
        ("/8", "--shard '/8': write the number"),
        ("0/8", r"counted from 1, so the last is 8/8.*--array=1-8.*SLURM_ARRAY_TASK_ID \+ 1\)\)/8"),
        ("9/8", "--shard 9/8: of 8 shards the last is 8/8; did you mean --shard 8/9"),
        ("1/0", "there must be at least 1 shard"),
        ("1/99999", "at most 10,000 shards are possible"),
    ],
)
def test_a_shard_that_cannot_be_is_refused(text, pattern):
    with pytest.raises(SuiteError, match=pattern):
        parse_shard(text)
