"""A finished record stays until a better one is whole."""

import pytest
from sweeps import method_file, suite

from nlbench import api

FAILS_ON_REQUEST = """
    class Fails(Method):
        def loss(self, logits, batch):
            if "NLBENCH_TEST_FAILS" in os.environ:
                raise KeyError("now it fails")
            return F.cross_entropy(logits, batch.labels)
"""


def prepared(tmp_path, **more):
    """Return a sweep of the method above."""
    return api.prepare(
        suite({"fails": {}}),
        out=tmp_path / "out",
        overrides={"epochs": 1, "subset": 200},
        device="cpu",
        methods_dir=method_file(tmp_path / "methods", "fails", FAILS_ON_REQUEST),
        **more,
    )


@pytest.mark.parametrize("executor", ["local", pytest.param("workers", marks=pytest.mark.story)])
def test_a_run_that_fails_on_being_trained_again_keeps_its_older_record(
    tmp_path, monkeypatch, executor
):
    monkeypatch.setenv("NLBENCH_EXECUTOR", executor)
    first = prepared(tmp_path)
    first.run()
    (spec,) = first.specs
    # As if an older version of the code had made it.
    record = first.store.read(spec.key)
    assert record.status == "done"
    first.store.write(record.model_copy(update={"code": "older"}), [])
    path = first.store.run_dir(spec.key) / "record.json"
    kept = path.read_bytes()

    monkeypatch.setenv("NLBENCH_TEST_FAILS", "1")
    again = prepared(tmp_path, stale="rerun")
    assert again.state.stale == {spec.key}
    again.run()

    assert path.read_bytes() == kept
    # The sweep still tells of the failure, and the next one tries again.
    (failed,) = again.failures()
    assert "now it fails" in failed.error_message

    monkeypatch.delenv("NLBENCH_TEST_FAILS")
    third = prepared(tmp_path, stale="rerun")
    assert [one.key for one in third.state.todo] == [spec.key]
    third.run()
    assert third.failures() == []
    assert path.read_bytes() != kept
