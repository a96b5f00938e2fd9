"""`nlbench check` and `nlbench new-method`: shipped methods pass, and how results are reported."""

import re
import sys

import pytest
from typer.testing import CliRunner
from written_methods import (
    CE,
    HEAD,
    complaints,
    failures,
    function,
    init,
    loss,
    members,
    scaled_by,
    shared,
    write,
)

from nlbench import registry
from nlbench.cli.app import app
from nlbench.conformance import checks, runner, template
from nlbench.errors import SuiteError

SHIPPED = {
    n: f for n, f in registry.method_files().items() if f.module.startswith("nlbench.methods.")
}

# It has a memory and a fast form. The default run checks it in full, and ce with the command.
ALWAYS = {"elr"}


@pytest.mark.parametrize(
    "name",
    [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.methods) for name in SHIPPED],
)
def test_a_shipped_method_passes(name):
    results = runner.check(name)
    assert not complaints(results)
    assert [result.name for result in results] == list(checks.CHECKS)


def test_the_methods_that_are_always_checked_are_shipped():
    assert set(SHIPPED) >= ALWAYS


# Forward has a helper network, and elr-plus has two networks with teachers.
@pytest.mark.parametrize("name", ["forward", "elr-plus"])
def test_a_method_of_several_networks_repeats_and_resumes(name):
    assert not complaints(runner.check(name, only=["repeat", "resume"]))


@pytest.mark.parametrize("name", sorted(SHIPPED.keys() - ALWAYS))
def test_a_shipped_method_passes_the_checks_that_train_once_or_not_at_all(name):
    results = runner.check(name, only=["source", "hyperparameters", "state", "fast-form"])
    assert not complaints(results)


@pytest.mark.parametrize(
    "only", [["source", "hyperparameters", "repeat"], pytest.param([], marks=pytest.mark.methods)]
)
def test_the_file_that_new_method_writes_passes(tmp_path, only):
    assert not complaints(runner.check(template.write("my-loss", tmp_path / "new"), only=only))


def test_the_first_line_of_the_template_is_remarked_on(tmp_path):
    result = runner.check(template.write("my-loss", tmp_path), only=["source"])[-1]
    assert "still the template's" in result.message


def test_two_classes_are_not_blamed_for_what_is_not_finite(tmp_path):
    body = members(loss("p = 0.0 if logits.shape[1] == 2 else 1.0", value="LOSS / p"))
    body = body.replace("LOSS", "F.cross_entropy(logits, batch.labels)")
    body = body.replace("/ p", "* torch.tensor(p).log().exp() / torch.tensor(p)")
    message = {r.name: r.message for r in runner.check(write(tmp_path, body), only=["2-classes"])}
    assert "loss is nan" in message["2-classes"]
    assert "top-k" not in message["2-classes"]


def test_a_check_that_cannot_be_judged_gives_the_reason(tmp_path):
    results = runner.check(write(tmp_path, members(loss("raise ZeroDivisionError"))))
    skipped = {result.name: result.message for result in results if result.status == "skipped"}
    assert skipped["resume"] == "cannot be judged while `repeat` is not ok"
    assert skipped["repeat"] == "cannot be judged while `train` is not ok"

    needless = ("import", "source", "hooks", "hyperparameters", "build")
    assert {result.status for result in results if result.name in needless} == {"ok"}


def judged(folder, source):
    results = runner.results(
        write(folder, members(CE), HEAD.replace("NeurIPS 2018, arXiv:1805.07836", source))
    )
    return next(result.status for result in results if result.name == "source")


@pytest.mark.parametrize(
    "source",
    [
        "ICML 2020, arxiv:2006.13554",
        "ICML 2020, ARXIV 2006.13554v2",
        "2001, arXiv:cs/0112017",
        "2001, cs.LG/0112017",
        "2005, arXiv:stat.ML/0507044",
        "2005, math.ST/0507044",
        "2002, arXiv:cond-mat/0201234",
        "2018, doi:10.1000/xyz123",
        "2018, HTTPS://example.org",
        "unpublished",
        "Doe, 2026. Unpublished.",
    ],
)
def test_sources_are_known_in_each_form(tmp_path, source):
    assert judged(tmp_path, source) == "ok"


@pytest.mark.parametrize("source", ["2018, section 3/1234567", "2018, arXiv", "arXiv:cs/0112017"])
def test_a_docstring_without_source_or_year_is_refused(tmp_path, source):
    assert judged(tmp_path, source) == "FAIL"


def test_examples_that_are_left_out_are_reported(tmp_path):
    few = function(
        "batches(self, run, epoch)", "for index in run.order()[:8].split(4): yield run.batch(index)"
    )
    results = runner.check(write(tmp_path, members(few, CE)), only=["train"])
    assert not complaints(results)
    said = next(result for result in results if result.name == "train").lines()
    assert said[0].endswith("outputs are finite; an epoch's batches hold 8 of 70 examples")


PACKAGE = """
from .shared import SCALE
COUNT = [0]
"""


@pytest.mark.parametrize("place", ["mymethods.inner", "mymethods"])
def test_an_installed_method_is_executed_again_and_no_module_is_left(tmp_path, monkeypatch, place):
    folder = tmp_path / "mymethods"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "shared.py").write_text("SCALE = 0.01\n")
    file = folder / ("inner.py" if place.endswith("inner") else "__init__.py")
    body = shared("COUNT[0]").replace("0.01", "SCALE")
    file.write_text(HEAD + PACKAGE + members(body))

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        registry,
        "method_files",
        lambda extra=(): {"mine": registry.MethodFile("mine", file, place, "Mine")},
    )
    registry.load_method(registry.method_files()["mine"])

    before = dict(sys.modules)
    try:
        found = failures("mine", only=["resume"])
        assert {name for name in sys.modules.keys() ^ before.keys() if "__" in name} == set()
        assert all(sys.modules[name] is module for name, module in before.items())
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "mymethods"]:
            del sys.modules[name]

    assert set(found) == {"resume"}
    assert "`COUNT` (5, after the resume 0)" in found["resume"]


def test_a_file_that_cannot_be_executed_twice_is_checked_nevertheless(tmp_path):
    once = "if hasattr(sys, 'was_here'): raise RuntimeError\nsys.was_here = True\n"
    try:
        assert failures(write(tmp_path, once + members(CE)), only=["resume"]) == {}
    finally:
        del sys.was_here


def test_declared_privileged_information_may_be_used(tmp_path):
    scale = "(self.task.noise_rate + self.task.T.diagonal().mean())"
    body = members(
        "told = ('noise_rate', 'T')\n",
        loss(value=f"F.cross_entropy(logits, batch.labels) * {scale}"),
    )
    assert failures(write(tmp_path, body), only=["clean-labels"]) == {}


def test_a_chosen_check_runs_after_those_it_depends_on(tmp_path):
    results = runner.check(write(tmp_path, members(CE)), only=["resume", "source"])
    names = [result.name for result in results]
    assert names == ["import", "source", "build", "train", "repeat", "resume"]
    assert {result.status for result in results} == {"ok"}


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NLBENCH_METHODS", raising=False)
    return lambda *words: CliRunner().invoke(app, ["check", *words], catch_exceptions=False)


def test_the_command_prints_a_line_for_each_check_and_its_exit_status_tells_a_failure(
    cli, tmp_path
):
    good = cli("ce")
    assert good.exit_code == 0, good.output
    lines = good.stdout.splitlines()
    assert lines[-1] == "ce: 31 ok, 0 failed, 2 skipped"
    status = {"fast-form": "skipped", "own-labels": "skipped"}
    assert [line.split()[:2] for line in lines[:-1]] == [
        [status.get(name, "ok"), name] for name in checks.CHECKS
    ]

    forgets = init("self.n = 0"), scaled_by("self.n", "self.n += 1")
    bad = cli(str(write(tmp_path, members(*forgets), name="bad")), "--only", "resume")
    assert bad.exit_code == 1
    assert "FAIL     resume " in bad.stdout
    assert "\n         `self.n`" in bad.stdout
    assert bad.stdout.splitlines()[-1].endswith("bad.py: 4 ok, 1 failed")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gcee"], "unknown method 'gcee'. .* Did you mean 'gce'?"),
        (["m/gone.py"], "m/gone.py: there is no such file"),
        (["m"], "m: not a method file"),
        (
            ["gce", "--set", "qq=1"],
            "--set qq: gce has no such hyperparameter. It takes: .* Did you mean 'q'?",
        ),
        (["gce", "--set", "q=2"], "--set q: must be in"),
        (["gce", "--set", "q=x"], "--set q: must be a number"),
        (["gce", "--methods-dir", "gone"], "not a folder of method files"),
        (
            ["gce", "--only", "resumes"],
            "--only resumes: unknown check. There are: import, .* Did you mean 'resume'?",
        ),
    ],
)
def test_a_wrong_argument_is_refused(cli, tmp_path, words, says):
    (tmp_path / "m").mkdir()
    result = cli(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.search(says.replace("?", r"\?"), result.stderr), result.stderr


def test_a_hyperparameter_can_be_set(tmp_path):
    body = members(
        init("self.kind = kind", more=", kind: str = 'good'"), loss("assert self.kind == 'good'")
    )
    assert set(failures(write(tmp_path, body), params={"kind": "bad"}, only=["train"])) == {"train"}


def test_the_callers_generators_and_threads_are_left_alone(tmp_path):
    import numpy as np
    import torch

    torch.manual_seed(3)
    np.random.seed(3)
    expected = (
        torch.random.get_rng_state(),
        np.random.get_state()[1].copy(),
        torch.get_num_threads(),
    )

    runner.check(write(tmp_path, members(CE)), only=["predict"])

    assert torch.equal(torch.random.get_rng_state(), expected[0])
    assert (np.random.get_state()[1] == expected[1]).all()
    assert torch.get_num_threads() == expected[2]


def new(name, folder):
    with pytest.raises(SuiteError) as caught:
        template.write(name, folder)
    return str(caught.value)


def test_new_method_refuses_a_name_that_cannot_be_or_is_taken(tmp_path):
    assert "Did you mean 'my-loss'?" in new("MyLoss", tmp_path)
    assert "Did you mean 'my-loss'?" in new("my_loss.py", tmp_path)
    assert "Did you mean 'my-2x'?" in new("2x", tmp_path)
    assert "exists already" in new("gce", tmp_path)
    assert list(tmp_path.iterdir()) == []

    path = template.write("my-loss", tmp_path)
    assert path.name == "my_loss.py"
    path.write_text("mine")
    assert "my_loss.py exists already" in new("my_loss", tmp_path)
    assert path.read_text() == "mine"


def test_what_never_begins_in_the_short_trainings_is_said_to_be_unchecked(tmp_path):
    """A newcomer's warm-up of 40 epochs: all checks pass, and none has seen what follows it."""
    late = init("self.warmup = warmup", more=", warmup: int = 40")
    results = runner.check(write(tmp_path, members(late, CE)), only=["train"])
    note = next(result for result in results if result.name == "train")
    assert note.status == "ok"
    assert note.message.startswith("not checked: warmup is 40, and this training has 4 epochs")
