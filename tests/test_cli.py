"""The commands as a user meets them: what they print and where, their exit statuses, and no traceback."""

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nlbench
from nlbench.cli.app import app
from nlbench.data.noise.label_files import labels_hash, read_labels

NLBENCH = Path(sys.executable).parent / "nlbench"
SUITE = """\
name: trial
protocol: digits
datasets:
  - {name: digits, noise: {kind: symmetric, rate: 0.4}}
methods:
  ce: {}
  gce: {}
seeds: [0]
overrides: {epochs: 1}
"""
FAILING = '''"""Fails in its first epoch."""
from nlbench.method import Method


class Failing(Method):
    def loss(self, logits, batch):
        raise KeyError("nothing under this key")
'''
ENDLESS = SUITE.replace("epochs: 1", "epochs: 100000")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of one's own with trial.yaml in it, to be in; nothing of the machine's own data or methods is seen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_DATA", str(tmp_path / "no-data"))
    monkeypatch.delenv("NLBENCH_METHODS", raising=False)
    (tmp_path / "trial.yaml").write_text(SUITE)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "failing.py").write_text(FAILING)
    return tmp_path


@pytest.fixture
def cli(place):
    """cli("run", "trial.yaml") -> the result, in this process; an error that is no exit is raised."""

    def call(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)

    return call


@pytest.fixture
def refused(cli):
    """refused(*arguments) -> the message of a command that ends with status 2 and prints nothing else."""

    def call(*arguments):
        result = cli(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        return result.stderr

    return call


@pytest.fixture
def process(place):
    """process("run", "trial.yaml") -> the finished process of the installed command."""

    def call(*arguments, **options):
        return subprocess.run(
            [NLBENCH, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", timeout=120, **options
        )

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with the trial suite's two runs."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "trial.yaml").write_text(SUITE)
    nlbench.run(folder / "trial.yaml", out=folder / "store")
    return folder / "store"


# --- run ----------------------------------------------------------------------------------------------------------


def test_run_prints_the_table_alone_on_standard_output(process, place):
    first = process("run", "trial.yaml", "--out", "store", env=os.environ | {"FORCE_COLOR": "1"})
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("**trial: Digits symmetric 0.4")
    assert first.stdout.count("\n| ") == 4  # heads, rule, two rows
    lines = first.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "[1/2] ce · Digits symmetric 0.4 · seed 0",
        "[2/2] gce · Digits symmetric 0.4 · seed 0",
    ]
    assert not re.search(r"[\r\x1b]", first.stderr + first.stdout)
    second = process("run", "trial.yaml", "--out", "store")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    assert process("table", "store").stdout == first.stdout


def test_a_failed_run_ends_in_status_1_and_the_others_go_on(cli, place):
    (place / "trial.yaml").write_text(SUITE.replace("ce: {}", "failing: {}", 1))
    result = cli("run", "trial.yaml", "--out", "store", "--methods-dir", "own")
    assert result.exit_code == 1
    assert "| failing |" in result.stdout
    assert "!1" in result.stdout
    assert 'raise KeyError("nothing under this key")' in result.stderr  # the traceback of the method's own file
    assert "[2/2] gce" in result.stderr
    key = re.search(r"failed: failing seed 0 \[(\w+)\]: KeyError", result.stderr)[1]
    shown = cli("show", key[:6], "--out", "store")
    assert shown.exit_code == 0
    assert "nothing under this key" in shown.stdout
    again = cli("run", "trial.yaml", "--out", "store", "--methods-dir", "own", "--only", "failing")
    assert again.exit_code == 1
    assert "[1/1] failing" in again.stderr  # a failure is tried again


def test_a_diverged_run_ends_in_status_1(cli):
    result = cli("run", "trial.yaml", "--out", "store", "--set", "lr=1e300", "--only", "ce")
    assert result.exit_code == 1
    assert re.search(r"diverged: ce seed 0 .*not finite in epoch 0, step \d", result.stderr)


def test_dry_run_counts_and_trains_nothing(cli, place):
    assert (
        "trial: 2 runs: 0 done, 2 missing, 0 failed, 0 diverged; 2 to do"
        in cli("run", "trial.yaml", "--out", "store", "--dry-run").stdout
    )
    assert not (place / "store").exists()
    assert cli("run", "trial.yaml", "--out", "store", "--only", "ce").exit_code == 0
    assert "1 done, 1 missing" in cli("run", "trial.yaml", "--out", "store", "--dry-run").stdout
    assert (
        ": 3 runs: 0 done"
        in cli("run", "trial.yaml", "--out", "store", "--dry-run", "--only", "ce", "--seeds", "1-3").stdout
    )
    assert "trial+epochs=2+schedule.rise=0.2: 1 run: 0 done, 1 missing" in cli(
        "run", "trial.yaml", "--out", "store", "--dry-run", "--only", "ce", "--set", "epochs=2", "--set",
        "schedule.rise=0.2",
    ).stdout  # fmt: skip


def test_stale_records_are_said_and_done_again_when_asked(cli, place):
    assert cli("run", "trial.yaml", "--out", "store").exit_code == 0
    for path in (place / "store" / "runs").glob("*/record.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "another"}))
    kept = cli("run", "trial.yaml", "--out", "store", "--dry-run")
    assert "2 done" in kept.stdout
    assert "0 to do" in kept.stdout
    assert "2 records were made by an older version of the code. `--stale rerun` trains them" in kept.stderr
    assert "*" in cli("table", "store").stdout.partition("| ce")[2].partition("\n")[0]
    redone = cli("run", "trial.yaml", "--out", "store", "--stale", "rerun")
    assert "[2/2]" in redone.stderr
    assert "older version" not in cli("run", "trial.yaml", "--out", "store", "--dry-run").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
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
        (["trial.yaml", "--set", "model=resnett8"], "--set model: unknown model 'resnett8'.*'resnet8'"),
        (["trial.yaml", "--device", "gpu"], "--device gpu: must be auto, cpu, cuda or cuda:NUMBER"),
        (["trial.yaml", "--device", "cuda:99"], "--device cuda:99: torch sees .* here; use cpu"),
        (["trial.yaml", "--methods-dir", "nowhere"], "nowhere: not a folder of method files"),
        (["trial.yaml", "--out", "trial.yaml"], "trial.yaml"),
        (["trial.yaml", "--stale", "maybe"], "keep"),
        (["trial.yaml", "--nothing"], "--nothing"),
        (["trial.yaml", "--jobs", "0"], "--jobs '0': must be auto or a number from 1 on"),
        (["trial.yaml", "--jobs", "many"], "--jobs 'many': must be auto or a number from 1 on"),
        (["trial.yaml", "--gpus", "0;2"], "--gpus '0;2': write the numbers of GPUs as 0,2"),
        (["trial.yaml", "--gpus", "97"], "--device cuda:97: torch sees"),
        (["trial.yaml", "--gpus", "0", "--device", "cpu"], "--gpus 0 and --device cpu exclude each other"),
        (["cifar10n-cpu"], "data is not there; nothing was trained(.|\n)*get CIFAR-10_human.pt"),
        (["cifar10n-cpu", "--dry-run"], "data is not there; nothing was trained"),
        (["cifar10n-cpu", "--data-dir", "trial.yaml"], "data is not there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_run_says_why(refused, place, arguments, said):
    message = refused("run", *arguments)
    assert re.search(said, message), message
    assert not list(place.glob("results/runs/*"))


def test_every_problem_of_a_suite_is_said_with_its_line(refused, place):
    (place / "trial.yaml").write_text(SUITE.replace("0.4", "1.4").replace("gce: {}", "gce: {q: 7}").replace("1}", "0}"))
    assert refused("run", "trial.yaml").splitlines() == [
        "error: trial.yaml:4: datasets.0.noise.rate: must be in [0, 1], got 1.4",
        "  trial.yaml:7: methods.gce.q: must be in (0, 1], got 7.0",
        "  trial.yaml:9: overrides.epochs: must be at least 1, got 0",
    ]


def test_a_broken_method_is_shown_whole_when_it_is_asked_for(refused, cli, place):
    (place / "own" / "broken.py").write_text('"""Broken."""\nimport no_such_package\n')
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
    """Wait for the sweep to have begun, then do as Ctrl-C does."""
    deadline = time.monotonic() + 240
    while not seen() and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        assert seen(), "the run did not begin"
        started.send_signal(signal.SIGINT)
        return started.communicate(timeout=120)
    except BaseException:
        started.kill()  # it would train for ever
        raise


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
    assert err == "interrupted; everything finished is kept, and the same command continues from here\n"
    assert len(list(place.glob("store/runs/*/record.json"))) == 2


def test_several_runs_at_once_print_the_same_table(process, place):
    one = process("run", "trial.yaml", "--out", "one")
    several = process("run", "trial.yaml", "--out", "several", "--jobs", "auto")
    assert (several.returncode, several.stdout) == (0, one.stdout)
    assert several.stderr.count("\n") == one.stderr.count("\n") == 2


def test_a_terminal_gets_live_lines_and_is_left_clean(place):
    (place / "trial.yaml").write_text(SUITE.replace("epochs: 1", "epochs: 30"))
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
            except OSError:  # Linux says so when the other end is closed
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
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is back


def test_debug_opens_pdb_where_a_run_fails(process, place):
    (place / "trial.yaml").write_text(SUITE.replace("ce: {}", "failing: {}", 1))
    result = process("run", "trial.yaml", "--out", "store", "--methods-dir", "own", "--debug", input="p 6 * 7\nq\n")
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


# --- table, show, list --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["md", "csv", "latex"])
def test_table_in_each_form(cli, trained, form):
    result = cli("table", trained, "--suite", "trial", "--format", form)
    assert (result.exit_code, result.stderr) == (0, "")
    assert {"md": "| gce ", "csv": ",gce,", "latex": r"\begin{tabular}"}[form] in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: holds no suite's results; `nlbench run SUITE --out nowhere` makes them"),
        (["STORE", "--suite", "trail"], "'trail'.*There are: trial.*Did you mean 'trial'"),
        (["STORE", "--metric", "lst"], "--metric lst.*Did you mean 'last'"),
        (["STORE", "--against", "cee"], "--against cee.*Did you mean 'ce'"),
        (["STORE", "--format", "html"], "latex"),
    ],
)
def test_a_table_that_cannot_be_says_why(refused, trained, arguments, said):
    message = refused("table", *(trained if a == "STORE" else a for a in arguments))
    assert re.search(said, message), message


def test_show_prints_one_record(cli, refused, trained):
    key = next(trained.glob("runs/*")).name
    record = json.loads(cli("show", key[:8], "--out", trained).stdout)
    assert record["key"] == key
    assert record["noise"]["noise_rate_full"] == pytest.approx(0.4, abs=0.01)
    for wrong in ("zzz", ""):  # none, and too many: either way the keys are listed
        message = refused("show", wrong, "--out", trained)
        assert re.search(rf"{key}  \w+ · digits symmetric 0.4 · seed 0 · done", message)
    assert "begins no run in nowhere" in refused("show", key, "--out", "nowhere")


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("methods", ["elr ", "bootstrap "]),
        ("datasets", ["cifar10n ", "worst", "1,397 training, 400 test"]),
        ("models", ["resnet34 ", "torchvision/NAME"]),
        ("protocols", ["cifar-cpu ", "v1"]),
        ("suites", ["quick ", "cifar10n-cpu "]),
    ],
)
def test_list(cli, what, some):
    result = cli("list", what)
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(word in result.stdout for word in some)
    assert all(len(line.split()) > 1 for line in result.stdout.splitlines())  # each has a line about it


def test_list_shows_methods_of_ones_own(cli):
    assert re.search(r"^failing +Fails in its", cli("list", "methods", "--methods-dir", "own").stdout, re.MULTILINE)


def test_list_of_something_else(refused):
    assert "'suites'" in refused("list", "nothings")


# --- data, noise, doctor ------------------------------------------------------------------------------------------


def test_data_status_says_where_each_file_goes(cli, place):
    text = cli("data", "status").stdout
    assert f"data directory: {place / 'no-data'}" in text
    assert "digits: there" in text
    assert "get CIFAR-10_human.pt" in text
    assert f"put it, as it is, at {place / 'no-data' / 'cifar-n' / 'CIFAR-10_human.pt'}" in text
    one = cli("data", "status", "cifar10", "--data-dir", "elsewhere").stdout
    assert "cifar10: missing in elsewhere" in one
    assert "digits" not in one


def test_data_of_an_unknown_name(refused):
    for command in ("status", "fetch"):
        assert "Did you mean 'cifar10'" in refused("data", command, "cifr10")
    assert "Did you mean 'digits'" in refused("noise", "export", "digit", "--kind", "symmetric", "--to", "x.npy")


def test_data_fetch_without_a_network_gives_the_advice(refused, monkeypatch):
    def no_network(*arguments, **options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    begun = time.monotonic()
    message = refused("data", "fetch", "cifar10")
    assert time.monotonic() - begun < 5
    assert "no connection (Name or service not known)" in message
    assert "get cifar-10-python.tar.gz" in message


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".json", ".pt"])
def test_noise_export_writes_what_a_run_trains_on(cli, place, trained, suffix):
    result = cli("noise", "export", "digits", "--kind", "symmetric", "--rate", 0.4, "--to", f"labels{suffix}")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"1397 labels, 39\.\d+% wrong, hash \w{16}", result.stdout)
    record = json.loads(next(trained.glob("runs/*/record.json")).read_text())
    assert record["noise"]["labels_hash"] in result.stdout
    assert labels_hash(read_labels(place / f"labels{suffix}")) in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kind", "symetric", "--rate", "0.4"], "--kind: unknown kind 'symetric'.*Did you mean 'symmetric'"),
        (["--kind", "symmetric"], "--rate: is required"),
        (["--kind", "symmetric", "--rate", "1.4"], r"--rate: must be in \[0, 1\], got 1.4"),
        (["--kind", "symmetric", "--rate", "nan"], "--rate: must be in"),
        (["--kind", "symmetric", "--rate", "0.4", "--seed", "-1"], "--seed"),
        (["--kind", "matrix", "--path", "nowhere"], "--path: there is no file"),
        (["--kind", "file", "--path", "x.npy"], "--kind: file needs a fixed order of images, and digits draws its own"),
        (["--kind", "asymmetric", "--rate", "0.4"], "--kind: asymmetric is defined for cifar10"),
        (["--kind", "symmetric", "--rate", "0.4", "--to", "labels.txt"], "--to labels.txt: labels are written as .npy"),
        (["--kind", "symmetric", "--rate", "0.4", "--to", "nowhere/x.npy"], "nowhere/x.npy: cannot be written"),
    ],
)
def test_noise_that_cannot_be_exported_says_why(refused, arguments, said):
    to = [] if "--to" in arguments else ["--to", "labels.npy"]
    message = refused("noise", "export", "digits", *arguments, *to)
    assert re.search(said, message), message


def test_noise_export_without_the_data_gives_the_advice(refused):
    message = refused("noise", "export", "cifar10", "--kind", "symmetric", "--rate", "0.4", "--to", "x.npy")
    assert "get cifar-10-python.tar.gz" in message


def test_doctor_shows_what_is_broken(cli, place):
    well = cli("doctor")
    assert "python 3." in well.stdout
    assert "kernels" in well.stdout
    assert "digits: there" in well.stdout
    (place / "own" / "broken.py").write_text("import no_such_package\n")
    ill = cli("doctor", "--methods-dir", "own")
    assert ill.exit_code == 1
    assert "No module named 'no_such_package'" in ill.stdout


# --- the command itself -------------------------------------------------------------------------------------------


def test_help_answers_at_once(process):
    # Processor time, because other processes of the machine delay the clock on the wall.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = process("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.5
    for name in ("run", "table", "list", "show", "data", "noise", "doctor"):
        assert name in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["--version"], ["run", "--help"], ["list", "methods"], ["list", "datasets"], ["list", "models"],
        ["list", "protocols"], ["list", "suites"], ["table", "STORE"], ["table", "STORE", "--format", "csv"],
        ["show", "KEY", "--out", "STORE"], ["data", "status"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_torch_is_not_imported_by(place, trained, arguments):
    names = {"STORE": str(trained), "KEY": next(trained.glob("runs/*")).name}
    script = (
        "import sys\nfrom nlbench import cli\ntry:\n    cli.main()\nexcept SystemExit as end:\n"
        "    assert not end.code, end.code\nassert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", script, *(names.get(a, a) for a in arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_version(cli):
    assert re.fullmatch(r"nlbench \d+\.\d+\S*\n", cli("--version").stdout)


def test_a_reader_that_goes_early_is_no_error(place, trained):
    command = f"'{NLBENCH}' table '{trained}' --format csv | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith("suite,")
    assert result.stderr == ""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # the harder case
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    gone = subprocess.Popen([NLBENCH, "table", trained], text=True, env=env, **pipes)
    gone.stdout.close()
    assert gone.stderr.read() == ""
    assert gone.wait(60) == 141


def test_a_terminal_that_knows_no_plus_minus_gets_a_table(process, trained):
    result = process("table", trained, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "mean?sample std" in result.stdout
