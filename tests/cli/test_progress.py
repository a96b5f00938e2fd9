"""The reports while runs train."""

from types import SimpleNamespace

from nlbench.cli.progress import Progress


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
