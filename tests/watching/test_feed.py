"""What loggers learn of a sweep, and what becomes of one that raises or hangs."""

import time

import pytest
from sweeps import sweep
from watchers import Hanging, Keeper, Raising, metrics_of, record_of

from nlbench.errors import UserError
from nlbench.training.context import At, Listener
from nlbench.watching import channel as channel_module
from nlbench.watching import choice, feed
from nlbench.watching.feed import watching


@pytest.fixture
def sw(tmp_path):
    """Return a prepared sweep of two runs."""
    return sweep(tmp_path / "store", {"ce": {}, "elr": {}})


def write_record(sw, spec, epochs):
    """Write the record of a run with so many epochs, and return it."""
    record = record_of(spec.key, spec=spec.identity())
    sw.store.write(record, [metrics_of(epoch) for epoch in range(epochs)])
    return record


def fed(sw, loggers, script, warn=None):
    """Let `script` call a feed's hooks, and return the lines that were printed."""
    lines = []
    with watching(loggers, sw.store.root, lines.append) as watch:
        script(watch.listener(sw.plan, sw.store, None))
    return lines


def test_a_run_begins_passes_its_epochs_and_ends_once(sw):
    keeper, spec = Keeper(), sw.specs[0]

    def script(listener):
        listener.on_start(spec)
        listener.on_step(spec, At("run", 0, 2, 1, 20))
        listener.on_step(spec, At("run", 0, 2, 2, 20))
        listener.on_epoch(spec, 0, 2, metrics_of(0))
        listener.on_epoch(spec, 1, 2, metrics_of(1))
        listener.on_finish(spec, write_record(sw, spec, 2))

    assert fed(sw, [keeper], script) == []
    key = spec.key
    assert keeper.told == [
        ("begin", key, True),
        ("epoch", key, 0),
        ("epoch", key, 1),
        ("ended", key, "done"),
        ("close",),
    ]


def test_a_run_that_continues_repeats_no_epoch(sw):
    # The first training was killed after epoch 1, and its last checkpoint is from epoch 1.
    keeper, spec = Keeper(known={0, 1}), sw.specs[0]

    def script(listener):
        listener.on_start(spec)
        listener.on_resume(spec, 1, 4)
        for epoch in (1, 2, 3):
            listener.on_epoch(spec, epoch, 4, metrics_of(epoch))
        listener.on_finish(spec, write_record(sw, spec, 4))

    fed(sw, [keeper], script)
    assert keeper.told[0] == ("begin", spec.key, False)
    assert keeper.epochs(spec.key) == [2, 3]


def test_epochs_that_were_not_reported_follow_from_the_history(sw):
    keeper, spec = Keeper(), sw.specs[0]

    def script(listener):
        listener.on_start(spec)
        listener.on_resume(spec, 2, 4)
        listener.on_epoch(spec, 2, 4, metrics_of(2))
        # The report of the last epoch came too late, and the first two were of a command
        # without loggers.
        listener.on_finish(spec, write_record(sw, spec, 4))

    fed(sw, [keeper], script)
    assert keeper.epochs(spec.key) == [2, 0, 1, 3]
    assert keeper.told[-2] == ("ended", spec.key, "done")


def test_a_failed_run_takes_no_epochs_of_an_older_result(sw):
    keeper, spec = Keeper(), sw.specs[0]
    write_record(sw, spec, 4)

    def script(listener):
        listener.on_start(spec)
        listener.on_finish(spec, record_of(spec.key, status="failed"))

    fed(sw, [keeper], script)
    assert keeper.told == [
        ("begin", spec.key, True),
        ("ended", spec.key, "failed"),
        ("close",),
    ]


def test_a_run_of_another_process_is_left_to_it(sw):
    keeper, (spec, other) = Keeper(), sw.specs

    def script(listener):
        listener.on_finish(spec, write_record(sw, spec, 2))
        # Put off, because another process trains its helper network.
        listener.on_start(other)
        listener.on_postpone(other)
        listener.on_finish(other, write_record(sw, other, 2))

    fed(sw, [keeper], script)
    assert keeper.told == [("close",)]


def test_a_run_that_lost_its_process_begins_again(sw):
    keeper, spec = Keeper(), sw.specs[0]

    def script(listener):
        listener.on_start(spec)
        listener.on_epoch(spec, 0, 2, metrics_of(0))
        listener.on_start(spec)
        listener.on_epoch(spec, 0, 2, metrics_of(0))

    fed(sw, [keeper], script)
    begin = ("begin", spec.key, True)
    assert keeper.told == [begin, ("epoch", spec.key, 0), begin, ("epoch", spec.key, 0), ("close",)]


def test_the_steps_of_a_helper_network_begin_no_run(sw):
    keeper, spec = Keeper(), sw.specs[0]

    def script(listener):
        listener.on_start(spec)
        listener.on_step(spec, At("helper network", 3, 9, 1, 20))

    fed(sw, [keeper], script)
    assert keeper.told == [("close",)]


def test_every_report_reaches_the_other_listener(sw):
    hooks = [name for name in vars(Listener) if name.startswith("on_")]
    told = []
    inner = Listener()
    for name in hooks:
        setattr(inner, name, lambda *values, name=name: told.append(name))

    with watching([Keeper()], sw.store.root, told.append) as watch:
        listener = watch.listener(sw.plan, sw.store, inner)
        spec, at = sw.specs[0], At("run", 0, 2, 1, 20)
        values = {"on_step": (spec, at), "on_epoch": (spec, 0, 2, metrics_of(0))}
        values |= {"on_fit": values["on_epoch"], "on_resume": (spec, 0, 2)}
        values |= {"on_phase": (spec, "x"), "on_stopped": (spec, 0, 2, 0)}
        values |= {"on_finish": (spec, record_of()), "on_wait": (1,), "on_stop": ("x",)}
        for name in hooks:
            getattr(listener, name)(*values.get(name, (spec,)))

    assert told == hooks


# --- loggers that do not work ---------------------------------------------------------------------


def two_epochs(spec):
    def script(listener):
        listener.on_start(spec)
        listener.on_epoch(spec, 0, 2, metrics_of(0))
        listener.on_epoch(spec, 1, 2, metrics_of(1))

    return script


def test_a_logger_that_raises_is_named_once_and_called_no_more(sw):
    raising, keeper, spec = Raising(), Keeper(), sw.specs[0]

    lines = fed(sw, [raising, keeper], two_epochs(spec))

    assert lines == [
        "the logger Raising is switched off and the training goes on without it: OSError: No space "
        "left on device"
    ]
    assert raising.told == [("begin", spec.key, True), ("epoch", spec.key, 0)]
    assert keeper.epochs(spec.key) == [0, 1]


def test_a_logger_that_hangs_is_left_behind_at_the_end(sw, monkeypatch):
    monkeypatch.setattr(feed, "END_SECONDS", 0.2)
    hanging, spec = Hanging(), sw.specs[0]

    began = time.monotonic()
    lines = fed(sw, [hanging], two_epochs(spec))
    hanging.free.set()

    assert time.monotonic() - began < 5
    assert len(lines) == 1
    assert "Hanging is switched off" in lines[0]
    assert "within 0.2 s" in lines[0]


def test_a_logger_that_hangs_is_switched_off_while_runs_go_on(sw, monkeypatch):
    monkeypatch.setattr(channel_module, "CALL_SECONDS", 0.1)
    hanging, spec = Hanging(), sw.specs[0]

    def script(listener):
        two_epochs(spec)(listener)
        while not hanging.epochs(spec.key):
            time.sleep(0.01)
        time.sleep(0.2)
        listener.on_epoch(spec, 2, 4, metrics_of(2))
        hanging.free.set()

    lines = fed(sw, [hanging], script)
    assert len(lines) == 1
    assert "has not answered for 0.1 s" in lines[0]
    # Neither the epochs that waited nor the end reach it.
    assert hanging.told == [("begin", spec.key, True), ("epoch", spec.key, 0)]


def test_a_stopped_sweep_waits_for_loggers_for_a_short_time_only(sw, monkeypatch):
    monkeypatch.setattr(feed, "STOP_SECONDS", 0.1)
    hanging, spec = Hanging(), sw.specs[0]

    def script(listener):
        two_epochs(spec)(listener)
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fed(sw, [hanging], script)
    hanging.free.set()
    assert time.monotonic() - began < 5


# --- which logger ---------------------------------------------------------------------------------


def test_a_package_that_is_not_installed_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)

    for name in ("tensorboard", "wandb", "mlflow"):
        with pytest.raises(UserError, match=rf"pip install 'nlbench\[{name}\]'"):
            choice.parse(f"{name}:x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorbord", "Did you mean .tensorboard."),
        ("", "none of this name"),
        ("nowhere/mine.py", "there is no such file"),
    ],
)
def test_a_name_that_is_no_logger(text, message):
    with pytest.raises(UserError, match=message):
        choice.parse(text)


@pytest.mark.parametrize("logger", [Keeper, object(), 3])
def test_an_object_that_is_no_logger(sw, logger):
    with pytest.raises(TypeError, match="begin, epoch, ended, close"):
        fed(sw, [logger], lambda listener: None)


def test_an_extra_installs_each_logger():
    import tomllib
    from pathlib import Path

    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for name in choice.names():
        assert any(wanted.startswith(name) for wanted in extras[name])
