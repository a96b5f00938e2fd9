"""The reports while runs train."""

from types import SimpleNamespace

import pytest

from nlbench.errors import DataError
from nlbench.executors.progress import Progress
from nlbench.results.record import RunRecord


def test_a_warning_of_the_data_is_reported_once(capsys):
    spec = SimpleNamespace(row="ce", seed=0, condition=SimpleNamespace(title="birds"), key="0" * 16)
    record = SimpleNamespace(
        status="done",
        metrics={"last": 0.5},
        timing={"train": 1, "evaluate": 1},
        error=None,
        error_message="",
        warnings=["a.jpg; left out"],
    )

    # Two runs on the same data repeat the warning in their records.
    with Progress(2) as progress:
        for _ in range(2):
            progress.on_finish(spec, record)

    assert capsys.readouterr().err.count("warning: a.jpg; left out\n") == 1


@pytest.mark.parametrize(
    ("error", "shown"), [(DataError("a.jpg: torn"), False), (KeyError(1), True)]
)
def test_the_traceback_of_a_failed_run_is_printed_unless_its_data_were_at_fault(
    capsys, error, shown
):
    spec = SimpleNamespace(row="ce", seed=0, condition=SimpleNamespace(title="birds"), key="0" * 16)
    facts = {"message": f"{type(error).__name__}: {error}", "traceback": "Traceback of it"}
    record = RunRecord(
        key=spec.key,
        status="failed",
        spec={},
        metrics={},
        noise={},
        timing={},
        environment={},
        method={},
        code="",
        error=facts,
    )

    with Progress(1) as progress:
        progress.on_finish(spec, record)
    printed = capsys.readouterr().err

    assert f"failed: {facts['message']}" in printed
    assert ("Traceback of it" in printed) == shown
