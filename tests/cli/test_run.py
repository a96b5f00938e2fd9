"""The command `run`: its output, its exit statuses, and its messages in place of tracebacks."""

import os
import pty
import re
import signal
import subprocess
import time

import pytest
from trial import ENDLESS, NLBENCH, SUITE

from nlbench.results.store import Store


def test_run_prints_the_table_alone_on_standard_output(cli):
    # Another program can read the output, because progress goes to standard error.
    first = cli("run", "trial.yaml", "--out", "store")
    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith("**trial: Digits symmetric 0.4")
    # The table's heads, its rule and two lines.
    assert first.stdout.count("\n| ") == 4
    progress = first.stderr.splitlines()
    assert len(progress) == 2
    assert progress[0].startswith("[1/2] ce · Digits symmetric 0.4 · seed 0:")
    assert progress[1].startswith("[2/2] gce · Digits symmetric 0.4 · seed 0:")

    # Nothing is left to train, so there is no progress, but the table is printed again.
    second = cli("run", "trial.yaml", "--out", "store")
    assert (second.exit_code, second.stdout, second.stderr) == (0, first.stdout, "")
    assert cli("table", "store").stdout == first.stdout


@pytest.mark.story
def test_output_to_a_file_has_no_colours(process):
    result = process("run", "trial.yaml", "--out", "store", env=os.environ | {"FORCE_COLOR": "1"})

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("**trial: Digits symmetric 0.4")
    assert len(result.stderr.splitlines()) == 2
    assert not re.search(r"[\r\x1b]", result.stderr + result.stdout)


def test_a_failed_run_ends_in_status_1_and_the_others_go_on(cli, place):
    (place / "trial.yaml").write_text(SUITE.replace("ce: {}", "failing: {}", 1))
    command = ("run", "trial.yaml", "--out", "store", "--methods-dir", "own")

    result = cli(*command)
    assert result.exit_code == 1
    assert "| failing |" in result.stdout
    assert "!1" in result.stdout
    # The traceback reaches into the method's file.
    assert 'raise KeyError("nothing under this key")' in result.stderr
    assert "[2/2] gce" in result.stderr

    key = re.search(r"failed: failing seed 0 \[(\w+)\]: KeyError", result.stderr)[1]
    shown = cli("show", key[:6], "--out", "store")
    assert shown.exit_code == 0
    assert "nothing under this key" in shown.stdout

    # The same command trains a failed run again.
    again = cli(*command, "--only", "failing")
    assert again.exit_code == 1
    assert "[1/1] failing" in again.stderr


def test_a_diverged_run_ends_in_status_1(cli):
    result = cli("run", "trial.yaml", "--out", "store", "--set", "lr=1e300", "--only", "ce")
    assert result.exit_code == 1
    assert re.search(r"diverged: ce seed 0 .*not finite in epoch 0, step \d", result.stderr)


def test_dry_run_counts_and_trains_nothing(cli, place):
    def counted(*options):
        return cli("run", "trial.yaml", "--out", "store", "--dry-run", *options).stdout

    assert "trial: 2 runs: 0 done, 2 missing, 0 failed, 0 diverged; 2 to do" in counted()
    assert not (place / "store").exists()

    # Runs are counted by their keys: one is done, and other seeds or values are other runs.
    assert cli("run", "trial.yaml", "--out", "store", "--only", "ce").exit_code == 0
    assert "1 done, 1 missing" in counted()
    assert ": 3 runs: 0 done" in counted("--only", "ce", "--seeds", "1-3")

    values = ("--set", "epochs=2", "--set", "schedule.rise=0.2")
    expected = "trial+epochs=2+schedule.rise=0.2: 1 run: 0 done, 1 missing"
    assert expected in counted("--only", "ce", *values)


def test_what_methods_keep_is_said_beforehand(cli, place, monkeypatch):
    (place / "trial.yaml").write_text(SUITE.replace("gce: {}", "elr: {}"))
    line = "elr keeps targets, 1,397 x 10 numbers in float32: 55.9 kB\n"
    assert line in cli("run", "trial.yaml", "--out", "store", "--dry-run").stdout

    # A training says it where it is much.
    assert line not in cli("run", "trial.yaml", "--out", "store").stderr
    monkeypatch.setattr("nlbench.cli.run.WORTH_SAYING", 50_000)
    assert line in cli("run", "trial.yaml", "--out", "other").stderr


def test_what_cannot_fit_into_memory_is_refused_with_status_2(refused, place, monkeypatch):
    (place / "trial.yaml").write_text(SUITE.replace("gce: {}", "elr: {}"))
    monkeypatch.setattr("nlbench.hardware.memory_bytes", lambda: 100_000)
    message = refused("run", "trial.yaml", "--out", "store")
    assert "elr keeps targets, 1,397 x 10 numbers in float32: 55.9 kB. A run on Digits" in message
    assert "fix: memory: bfloat16" in message


def test_stale_records_are_reported_and_trained_again_on_request(cli, place):
    command = ("run", "trial.yaml", "--out", "store")
    assert cli(*command).exit_code == 0
    store = Store(place / "store")
    for key in store.run_keys():
        # Written by the store, since a record that is edited by hand counts as damaged.
        store.write(store.read(key).model_copy(update={"code": "another"}), [])

    kept = cli(*command, "--dry-run")
    assert "2 done" in kept.stdout
    assert "0 to do" in kept.stdout
    notice = "2 records were made by an older version of the code. `--stale rerun` trains them"
    assert notice in kept.stderr
    # A star marks numbers of stale records.
    assert "*" in cli("table", "store").stdout.partition("| ce")[2].partition("\n")[0]

    redone = cli(*command, "--stale", "rerun")
    assert "[2/2]" in redone.stderr
    assert "older version" not in cli(*command, "--dry-run").stderr


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["quik"], "unknown suite 'quik'.*Did you mean 'quick'"),
        (["nothing.yaml"], "there is no such file"),
        (["own"], "that is a folder"),
        (["trial.yaml", "--only", "cee"], "--only cee: no such row. The suite has: ce, gce.*'ce'"),
        (["trial.yaml", "--only", ""], "--only '': write rows as ce,elr"),
        (["trial.yaml", "--seeds", "a"], "--seeds a: write seeds as"),
        (["trial.yaml", "--seeds", ""], "write seeds as"),
        (["trial.yaml", "--set", "epoch=2"], "--set epoch: unknown key.*Did you mean 'epochs'"),
        (["trial.yaml", "--set", "epochs"], "write it as KEY=VALUE"),
        (["trial.yaml", "--set", "epochs=two"], "--set epochs: must be an integer, got 'two'"),
        (["trial.yaml", "--set", "schedule.gamma=1"], "--set schedule.gamma: unknown key"),
        (["trial.yaml", "--set", "lr=.inf"], "--set lr: must be finite"),
        (
            ["trial.yaml", "--set", "model=resnett8"],
            "--set model: unknown model 'resnett8'.*'resnet8'",
        ),
        (["trial.yaml", "--device", "gpu"], "--device gpu: must be auto, cpu, cuda or cuda:NUMBER"),
        (["trial.yaml", "--device", "cuda:99"], "--device cuda:99: torch sees .* here; use cpu"),
        (["trial.yaml", "--methods-dir", "nowhere"], "nowhere: not a folder of method files"),
        (["trial.yaml", "--out", "trial.yaml"], "trial.yaml"),
        (["trial.yaml", "--stale", "maybe"], "keep"),
        (["trial.yaml", "--nothing"], "--nothing"),
        (["trial.yaml", "--jobs", "0"], "--jobs '0': must be auto or a number from 1 on"),
        (["trial.yaml", "--jobs", "many"], "--jobs 'many': must be auto or a number from 1 on"),
        (["trial.yaml", "--gpus", "0;2"], "--gpus '0;2': write the numbers of GPUs as 0,2"),
        (["trial.yaml", "--gpus", "96,97"], r"^error: --gpus 96(,97)?: torch sees .* here"),
        (
            ["trial.yaml", "--gpus", "0,1", "--executor", "ray"],
            "--gpus 0,1: Ray assigns the GPUs",
        ),
        (["trial.yaml", "--gpus", "97"], "--gpus 97: torch sees .* here; use cpu"),
        (
            ["trial.yaml", "--gpus", "0", "--device", "cpu"],
            "--gpus 0 and --device cpu exclude each other",
        ),
        (["cifar10n-cpu"], "data is not there; nothing was trained(.|\n)*get CIFAR-10_human.pt"),
        (["cifar10n-cpu", "--dry-run"], "data is not there; nothing was trained"),
        (["cifar10n-cpu", "--data-dir", "trial.yaml"], "data is not there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_refused_run_says_why(refused, place, arguments, pattern):
    message = refused("run", *arguments)
    assert re.search(pattern, message), message
    assert not list(place.glob("results/runs/*"))


# Reported one at a time, three mistakes would need three attempts.
def test_every_problem_of_a_suite_is_reported_with_its_line(refused, place):
    text = SUITE.replace("0.4", "1.4").replace("gce: {}", "gce: {q: 7}").replace("1}", "0}")
    (place / "trial.yaml").write_text(text)

    assert refused("run", "trial.yaml").splitlines() == [
        "error: trial.yaml:4: datasets.0.noise.rate: must be in [0, 1], got 1.4",
        "  trial.yaml:7: methods.gce.q: must be in (0, 1], got 7.0",
        "  trial.yaml:9: overrides.epochs: must be at least 1, got 0",
    ]


def test_a_broken_method_is_an_error_only_of_a_suite_that_uses_it(refused, cli, place):
    (place / "own" / "broken.py").write_text('"""Broken."""\nimport no_such_package\n')
    # Names are listed without an import of the files.
    assert "error" not in cli("list", "methods", "--methods-dir", "own").stderr

    (place / "trial.yaml").write_text(SUITE.replace("gce: {}", "broken: {}"))
    message = refused("run", "trial.yaml", "--methods-dir", "own")
    assert "own/broken.py: cannot be imported" in message
    assert "No module named 'no_such_package'" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written(refused, place):
    (place / "closed").mkdir(mode=0o500)
    assert "cannot write the records there" in refused("run", "trial.yaml", "--out", "closed/store")


def interrupt(started, seen):
    """Wait until `seen` says that a sweep has begun, then interrupt it as Ctrl-C does."""
    deadline = time.monotonic() + 240
    while not seen() and time.monotonic() < deadline:
        time.sleep(0.05)

    try:
        assert seen(), "the run did not begin"
        started.send_signal(signal.SIGINT)
        return started.communicate(timeout=120)
    except BaseException:
        # Without this it would go on training after the test.
        started.kill()
        raise


@pytest.mark.story
def test_ctrl_c_ends_in_130_and_keeps_what_is_finished(process, place):
    assert process("run", "trial.yaml", "--out", "store").returncode == 0
    (place / "trial.yaml").write_text(ENDLESS)
    going = subprocess.Popen(
        [NLBENCH, "run", "trial.yaml", "--out", "store", "--checkpoint-seconds", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, err = interrupt(going, lambda: list(place.glob("store/runs/*/checkpoint.pt")))

    assert going.returncode == 130
    assert out == ""
    # Before it is interrupted, such a run is announced to take long.
    announced = ("estimate: ", "it would take less time", "  --")
    others, stopping, continues, ended = [
        line for line in err.splitlines() if not line.startswith(announced)
    ]
    # The runs of the first command had other settings.
    assert "held a suite 'trial' with another protocol.epochs, and 2 of its runs" in others
    assert stopping == "stopping; finished runs are kept. Press Ctrl-C again to stop at once."
    assert "seed 0: continues in epoch" in continues
    assert ended == (
        "interrupted; everything finished is kept, and the same command continues from here"
    )
    assert len(list(place.glob("store/runs/*/record.json"))) == 2


@pytest.mark.story
def test_several_runs_at_once_print_the_same_table(process, place):
    one = process("run", "trial.yaml", "--out", "one")
    several = process("run", "trial.yaml", "--out", "several", "--jobs", "auto")

    assert (several.returncode, several.stdout) == (0, one.stdout)
    assert several.stderr.count("\n") == one.stderr.count("\n") == 2


@pytest.mark.story
def test_a_terminal_gets_live_lines_and_is_left_clean(place):
    (place / "trial.yaml").write_text(SUITE.replace("epochs: 1", "epochs: 30"))
    # A pseudo-terminal, because the lines appear only where standard error is a terminal.
    parent, child = pty.openpty()
    with subprocess.Popen(
        [NLBENCH, "run", "trial.yaml", "--out", "store", "--only", "ce"],
        stdout=subprocess.PIPE, stderr=child, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    ) as going:  # fmt: skip
        os.close(child)
        seen = b""
        while True:
            try:
                chunk = os.read(parent, 65536)
            except OSError:
                # Linux raises this when the other end is closed.
                break
            if not chunk:
                break
            seen += chunk
        assert going.wait(60) == 0
    os.close(parent)

    text = seen.decode()
    assert re.search(r"suite.*0 of 1 runs · Digits symmetric 0.4", text)
    assert re.search(r"ce · seed 0.*epoch \d+/30  loss \d", text)
    assert "[1/1] ce · Digits symmetric 0.4 · seed 0:" in text
    # The cursor was hidden as often as it was shown again.
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")


@pytest.mark.story
def test_debug_opens_pdb_where_a_run_fails(process, place):
    (place / "trial.yaml").write_text(SUITE.replace("ce: {}", "failing: {}", 1))
    command = ("run", "trial.yaml", "--out", "store", "--methods-dir", "own", "--debug")

    result = process(*command, input="p 6 * 7\nq\n")

    assert result.returncode == 1
    assert "(Pdb)" in result.stdout
    assert "42" in result.stdout
    assert "failing.py" in result.stdout
    assert "KeyError: 'nothing under this key'" in result.stderr


def test_debug_trains_one_run_and_says_how_it_ended(cli, place):
    result = cli("run", "trial.yaml", "--out", "store", "--debug")

    assert result.exit_code == 0
    assert re.search(r"ce seed 0 \[\w+\]: done", result.stderr)
    assert len(list(place.glob("store/runs/*/record.json"))) == 1
