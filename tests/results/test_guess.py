"""Whether a suite seems to be done is read from the names of the store's files."""

import json

import pytest

from nlbench.results.guess import seems_done


@pytest.fixture
def root(tmp_path):
    """Return a store in which the runs of seed 0 have records, of both plans."""
    (tmp_path / "suites").mkdir()
    for name in ("quick", "quick+epochs=3"):
        cells = []
        for row in ("ce", "elr"):
            for seed in (0, 1):
                key = f"{len(name):04d}{row}{seed}"
                cells.append({"row": row, "seed": seed, "key": key, "condition": 0})
                if seed == 0:
                    (tmp_path / "runs" / key).mkdir(parents=True)
                    (tmp_path / "runs" / key / "record.json").write_text("{}")
        (tmp_path / "suites" / f"{name}.json").write_text(json.dumps({"cells": cells}))
    return tmp_path


def test_it_is_done_when_each_run_that_was_asked_for_has_a_record(root):
    assert not seems_done(root, "quick")
    assert seems_done(root, "quick", seeds=[0])
    assert seems_done(root, "quick", rows=["ce"], seeds=[0])
    assert not seems_done(root, "quick", rows=["ce"], seeds=[0, 1])
    assert seems_done(root, "quick", seeds=[0], overridden=True)

    (root / "runs" / "0005ce0" / "record.json").unlink()
    assert not seems_done(root, "quick", seeds=[0])
    assert seems_done(root, "quick", rows=["elr"], seeds=[0])
    # Another plan, which has all of them.
    assert seems_done(root, "quick", seeds=[0], overridden=True)


def test_what_cannot_be_read_is_not_done(root):
    assert not seems_done(root / "elsewhere", "quick", seeds=[0])
    assert not seems_done(root, "other", seeds=[0])
    for damaged in ("", "[]", '{"cells": 3}', '{"cells": [{"row": "ce"}]}', '{"cells": [3]}'):
        (root / "suites" / "quick.json").write_text(damaged)
        assert not seems_done(root, "quick", seeds=[0])
