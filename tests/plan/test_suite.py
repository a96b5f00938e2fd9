"""From a suite file to runs and their keys, and problems with their file, line and key."""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nlbench import registry
from nlbench.data.noise.kinds import KINDS, Param
from nlbench.data.places import Places
from nlbench.errors import DataMissing, SuiteError
from nlbench.method import Task
from nlbench.plan.expand import expand
from nlbench.plan.options import parse_set
from nlbench.plan.suite_file import read_suite
from nlbench.results.published import records as published
from nlbench.training.phases import unreached

GOOD = """\
name: trial
protocol: digits
datasets:
  - {name: digits, noise: {kind: symmetric, rate: 0.4}}
methods:
  ce: {}
  elr: {beta: 0.7, lam: 3.0}
seeds: [0, 1]
overrides: {epochs: 2}
"""


@pytest.fixture
def plan(tmp_path):
    """Return plan(text, ...), which expands a suite given as text, as a path or as a mapping."""

    def make(source=GOOD, **options):
        if isinstance(source, str):
            path = tmp_path / "trial.yaml"
            path.write_text(source)
            source = path

        suite, problems = read_suite(source)
        return expand(
            suite, problems, places=Places(tmp_path / "no-data", tmp_path / "cache"), **options
        )

    return make


@pytest.fixture
def problems_of(plan, tmp_path):
    """Return problems_of(text), which gives the lines of the error without the file's folder."""

    def make(text, **options):
        with pytest.raises(SuiteError) as caught:
            plan(text, **options)
        return str(caught.value).replace(f"{tmp_path}/trial", "trial").splitlines()

    return make


def changed(*pairs, text=GOOD):
    """Replace parts of a suite's text; each pair is (old, new)."""
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


# --- the same run, another run --------------------------------------------------------------------


def keys(plan):
    """List the keys of a plan's runs."""
    return [spec.key for spec in plan.specs]


def titles(plan):
    """List how tables call a plan's conditions."""
    return [condition.title for condition in plan.conditions]


@pytest.mark.parametrize(
    "text",
    [
        changed(("name: trial", "name: other\ndescription: something else")),
        changed(("{beta: 0.7, lam: 3.0}", "{lam: 3.0, beta: 0.7}")),
        # A default is the same value as if it were written out.
        changed(("{beta: 0.7, lam: 3.0}", "{}")),
        changed(("lam: 3.0", "lam: 3")),
        changed(("rate: 0.4", "rate: 4e-1")),
        changed(("  elr: {", "  other-row: {method: elr, ")),
        changed(("protocol: digits\n", ""), ("seeds:", "protocol: digits\nseeds:")),
    ],
)
def test_the_same_run_written_otherwise_has_the_same_key(plan, text):
    assert keys(plan(text)) == keys(plan())


def test_another_value_makes_another_key(plan):
    every = [
        "epochs=3", "lr=0.04", "batch_size=64", "weight_decay=1e-4", "momentum=0.8",
        "nesterov=true", "threads=2", "precision=bfloat16", "val_fraction=0.1", "subset=1000",
        "stratify=clean", "schedule.rise=0.2", "model=cnn3", "clip_norm=5",
    ]  # fmt: skip

    found = {keys(plan())[0]}
    for setting in every:
        found.add(keys(plan(settings=parse_set([setting])))[0])

    assert len(found) == len(every) + 1


# --- expansion ------------------------------------------------------------------------------------


def test_runs_come_seed_by_seed_so_that_every_method_has_one_early(plan):
    text = changed(("rate: 0.4", "rate: [0.2, 0.4]"))
    order = [(spec.seed, spec.condition.noise["rate"], spec.row) for spec in plan(text).specs]
    assert order == list(itertools.product([0, 1], [0.2, 0.4], ["ce", "elr"]))


def test_seeds_of_the_command_line_join_the_plan(plan):
    assert sorted({spec.seed for spec in plan(seeds=[1, 7]).specs}) == [0, 1, 7]


def test_overrides_of_the_command_line_make_a_plan_of_their_own(plan):
    changed_plan = plan(settings=parse_set(["epochs=1", "schedule.rise=0.2"]))
    assert changed_plan.name == "trial+epochs=1+schedule.rise=0.2"
    assert {spec.protocol.epochs for spec in changed_plan.specs} == {1}
    assert not set(keys(changed_plan)) & set(keys(plan()))


def test_one_hyperparameter_set_for_each_dataset(plan):
    entry = "{lam: 2.0, per_dataset: {digits: {beta: 0.9}}}"
    text = changed(("{beta: 0.7, lam: 3.0}", entry))
    elr = next(spec for spec in plan(text).specs if spec.row == "elr")
    assert elr.params == {"beta": 0.9, "lam": 2.0}


def test_labels_and_noise_may_be_one_or_several(plan):
    noise = "noise: {kind: symmetric, rate: 0.4}"
    one = changed((noise, "labels: clean"))
    several = changed((noise, "labels: [clean], noise: [{kind: pair-flip, rate: 0.1}]"))
    neither = changed((f", {noise}", ""))

    assert titles(plan(one)) == ["Digits"]
    assert titles(plan(several)) == ["Digits", "Digits pair-flip 0.1"]
    assert keys(plan(neither)) == keys(plan(one))


def test_noises_that_differ_in_a_parameter_of_their_kind_alone_have_different_titles(
    plan, monkeypatch
):
    kind = KINDS["pair-flip"]
    spread = Param("spread", float, "how far a label moves", default=1.0)
    monkeypatch.setitem(KINDS, kind.name, replace(kind, params=(*kind.params, spread)))

    noise = "{kind: pair-flip, rate: 0.1, spread: %s}"
    several = changed(
        ("{kind: symmetric, rate: 0.4}", f"[{noise % 1}, {noise % 2}, {noise % 2.5}]")
    )

    title = "Digits pair-flip 0.1"
    assert titles(plan(several)) == [title, f"{title} (spread 2)", f"{title} (spread 2.5)"]


def test_a_mapping_is_a_suite_too(plan):
    mapping = {
        "name": "trial", "protocol": "digits", "seeds": [0, 1], "overrides": {"epochs": 2},
        "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
        "methods": {"ce": None, "elr": {"beta": 0.7, "lam": 3.0}},
    }  # fmt: skip

    assert keys(plan(mapping)) == keys(plan())


# Rows x conditions x seeds of each suite that comes with nlbench.
RUNS = {
    "animal10n": 56 * 5,
    "animal10n-published": 3 * 5,
    "cifar-published": 3 * 12 * 5,
    "cifar10-losses-asym-published": 11 * 4 * 5,
    "cifar10-losses-published": 11 * 5 * 5,
    "cifar100-losses-asym-published": 11 * 4 * 5,
    "cifar100-losses-published": 11 * 5 * 5,
    "cifar100n": 56 * 5,
    "cifar10n": 56 * 5 * 5,
    "cifar10-sym-cpu": 6 * 3 * 5,
    "cifar10n-cpu": 14 * 5,
    "cifar10n-cpu-aggregate": 10 * 5,
    "cifar10n-cpu-clean": 6 * 5,
    "cifar10n-cpu-aug": 6 * 5,
    "cifar10n-cpu-decay": 6 * 5,
    "cifar10n-cpu-random1": 10 * 5,
    # Without the tries, which are the suite's first stage.
    "cifar10n-cpu-tuned": 7 * 5,
    "cifar10n-features": 46 * 5 * 5,
    "clothing1m": 56 * 5,
    "clothing1m-losses-published": 7 * 5,
    "clothing1m-published": 4 * 5,
    "digits-all": 58 * 5,
    "digits-elr-plus": 10 * 2 * 5,
    "early-learning-linear": 10 * 5,
    "elr-table1-cifar10": 7 * 8 * 5,
    "elr-table1-cifar10-asym-published": 10 * 4 * 5,
    "elr-table1-cifar10-published": 10 * 4 * 5,
    "elr-table1-cifar100": 7 * 8 * 5,
    "elr-table1-cifar100-published": 10 * 8 * 5,
    "elr-table2": 8 * 8 * 5,
    "elr-table2-asym": 6 * 2 * 5,
    "elr-table2-identical": 9 * 10 * 5,
    "elr-table3": 8 * 5,
    "elr-table4": 7 * 5,
    "elr-table5": 10 * 2 * 5,
    "elr-table5-identical": 10 * 2 * 5,
    "forward-imdb": 6 * 4 * 5,
    "forward-mnist": 6 * 4 * 5,
    "quick": 10 * 5,
    "webvision": 56 * 5,
    "webvision-published": 5 * 5,
    "cifar10n-published": 12 * 5 * 5,
    "cifar100n-published": 12 * 5,
    "cifar10n-fast": 10 * 5,
}


def shipped(**wanted):
    """List the suites that come with nlbench and have these values."""
    found = []
    for name in sorted(registry.suite_files()):
        suite, _ = read_suite(name)
        if all(getattr(suite, key) == value for key, value in wanted.items()):
            found.append(name)

    return found


@pytest.fixture
def without_data(monkeypatch, tmp_path):
    """Let suites expand as if their data were there."""
    # Features are the user's own, so that nothing is known of them without the file.
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 10
    arrays = {f"train_label_{name}": labels for name in ("aggregate", "random1", "random2")}
    arrays |= {"train_label_random3": labels, "train_label_worst": labels}
    for part in ("train", "test"):
        arrays[f"{part}_features"] = rng.standard_normal((100, 4)).astype(np.float16)
        arrays[f"{part}_labels"] = labels
    (tmp_path / "no-data").mkdir()
    np.savez(tmp_path / "no-data" / "cifar10n-features.npz", **arrays)

    def fingerprints(conditions, *_):
        return {(c.dataset, c.labels): "0" for c in conditions}, {}

    monkeypatch.setattr("nlbench.plan.expand.read_fingerprints", fingerprints)


def test_every_shipped_suite_is_counted():
    assert set(RUNS) == set(shipped())


def phases_never_begun(spec):
    """Say which phases of a run's method its training does not reach, by building the method."""
    protocol = spec.protocol
    steps = protocol.batches_per_epoch or 11
    told = {"noise_rate": 0.4, "T": torch.eye(10)}
    labels = torch.arange(10)
    task = Task(10, 10, labels, protocol.epochs, steps, protocol.batch_size, privileged=told)
    cls = registry.load_method(registry.method_files()[spec.method])
    return unreached(cls(task, **spec.params), spec.params, protocol.epochs, steps)


@pytest.mark.parametrize("name", sorted(RUNS))
def test_shipped_suites_are_sound(plan, without_data, name):
    found = plan(Path(name))
    assert len(found.specs) == RUNS[name]
    assert found.name == name
    assert found.suite.seeds == [0, 1, 2, 3, 4]

    # On the identical track all methods have one protocol for each dataset.
    if found.suite.track == "identical":
        datasets = {spec.condition.dataset for spec in found.specs}
        recipes = {(spec.condition.dataset, repr(spec.protocol)) for spec in found.specs}
        assert len(recipes) == len(datasets)
        assert not any(entry.protocol for entry in found.suite.methods.values())

    for spec in found.specs:
        if spec.seed == 0:
            assert not phases_never_begun(spec), spec.row

    text = Path(registry.suite_files()[name]).read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 120
    assert found.suite.description
    assert "\n" not in found.suite.description


def test_the_suite_of_features_leaves_out_those_alone_that_learn_from_views():
    images, _ = read_suite("cifar10n")
    features, _ = read_suite("cifar10n-features")
    small, _ = read_suite("cifar10n-cpu")
    text = Path(registry.suite_files()["cifar10n-features"]).read_text(encoding="utf-8")

    left_out = images.methods.keys() - features.methods.keys()
    assert features.methods.keys() - images.methods.keys() == {"no-regulariser"}
    # The comment names each of them.
    reasons = text.partition("# Left out")[2].partition("methods:")[0]
    assert {row for row in images.methods if re.search(rf"\b{row}[ ,.]", reasons)} == left_out
    # Of the first two the views are merely the same, and the third one never begins.
    strong = {row for row in left_out if (images.methods[row].method or row) in STRONG}
    assert left_out - strong == {"dividemix", "pes", "d2l"}
    # The two tables are compared row by row.
    assert small.methods.keys() <= features.methods.keys()
    for row, entry in small.methods.items():
        assert features.methods[row] == entry


def test_each_of_several_label_sets_has_its_name_in_tables(plan, without_data):
    titles = [condition.title for condition in plan(Path("cifar10n-features")).conditions]

    assert titles == [
        f"cifar10n-features {name}"
        for name in ("aggregate", "random1", "random2", "random3", "worst")
    ]
    # A single one is what the dataset's title stands for.
    (one,) = plan(ON_FEATURES.replace("METHOD", "ce")).conditions
    assert one.title == "cifar10n-features"


@pytest.mark.parametrize(
    ("labels", "title"),
    [
        ("", "CIFAR-10N clean"),
        ("labels: clean", "CIFAR-10N clean"),
        ("labels: worst", "CIFAR-10N worst"),
    ],
)
def test_true_labels_never_have_the_title_of_a_dataset_with_wrong_ones(
    plan, without_data, labels, title
):
    text = f"protocol: cifar-cpu, datasets: [{{name: cifar10n, {labels}}}]"

    assert titles(plan(f"{{name: t, {text}, methods: {{ce: {{}}}}, seeds: [0]}}")) == [title]


ON_FEATURES = (
    "{name: t, protocol: features, datasets: [{name: features, path: cifar10n-features.npz, "
    "label: label_worst, clean_label: labels}], methods: {METHOD: {}}, seeds: [0]}"
)


@pytest.mark.parametrize("method", ["dividemix", "pes", "elr-plus"])
def test_methods_with_several_weak_views_run_on_features(plan, without_data, method):
    assert len(plan(ON_FEATURES.replace("METHOD", method)).specs) == 1


@pytest.mark.parametrize("method", ["disc", "gjs", "pls", "promix", "sop-plus", "ssr", "unicon"])
def test_methods_with_strong_views_are_refused_on_features(plan, without_data, method):
    with pytest.raises(
        SuiteError, match=r"learns from strong views of images, .* leave the row out"
    ):
        plan(ON_FEATURES.replace("METHOD", method))


NO_FILES = {name for name in RUNS if name.startswith(("quick", "digits-", "early-"))}


@pytest.mark.parametrize("name", sorted(NO_FILES))
def test_some_shipped_suites_need_no_files(plan, name):
    assert len(plan(Path(name)).specs) == RUNS[name]


def test_the_suite_of_features_says_what_makes_its_file(plan, tmp_path):
    with pytest.raises(SuiteError, match="no such file") as refusal:
        plan(Path("cifar10n-features"))
    # The folder of the suites is no place for data.
    message = str(refusal.value)
    made = re.search(r"`nlbench embed DATASET --to (\S+)` makes features of images", message)
    assert Path(made[1]) == tmp_path / "no-data" / "cifar10n-features.npz"
    assert f"no such file, nor in the data directory: {made[1]}: no such file;" in message


@pytest.mark.parametrize("name", sorted(RUNS.keys() - NO_FILES - {"cifar10n-features"}))
def test_the_other_shipped_suites_lack_nothing_but_their_data(plan, name):
    with pytest.raises(DataMissing) as caught:
        plan(Path(name))
    for entry in read_suite(name)[0].datasets:
        assert f"{entry.name}: missing in" in str(caught.value)


def test_rows_of_the_fast_suite_are_rows_of_the_full_one():
    """Keep rows equal, since `nlbench agreement` compares those of one name, method and values."""
    fast, _ = read_suite("cifar10n-fast")
    full, _ = read_suite("cifar10n")

    for row, entry in fast.methods.items():
        assert full.methods[row] == entry


# A source is a repository, one of its files or a paper.
SOURCE = re.compile(r"[A-Za-z][\w-]*/[A-Za-z][\w.-]*|\w+\.(json|py|yaml)|[Pp]aper")


def comments_of_rows(lines):
    """Return the comments in the lines of each row under `methods`, and right above it."""
    begins = {}
    for i, line in enumerate(lines):
        if match := re.match(r"  ([\w-]+):", line):
            begins[match[1]] = i

    comments = {}
    for row, first in begins.items():
        last = first + 1
        while last < len(lines) and not re.match(r"(  )?[\w#]", lines[last]):
            last += 1
        while lines[first - 1].startswith("  #"):
            first -= 1
        comments[row] = " ".join(line.partition("#")[2] for line in lines[first:last])

    return comments


@pytest.mark.parametrize("name", shipped(track="as-published"))
def test_recipes_as_published_name_their_source(name):
    """Look for a source in each row with its own protocol, and above the shared overrides."""
    lines = Path(registry.suite_files()[name]).read_text(encoding="utf-8").splitlines()
    suite, _ = read_suite(name)

    if suite.overrides:
        shared = lines[lines.index("datasets:") - 1 :: -1]
        assert any(SOURCE.search(line.partition("#")[2]) for line in shared)

    comments = comments_of_rows(lines)
    for row, entry in suite.methods.items():
        on_some_dataset = any("protocol" in values for values in entry.per_dataset.values())
        if entry.protocol or on_some_dataset:
            assert SOURCE.search(comments[row]), row


# The epochs and steps of the authors, as shares of their trainings.
T1, T2, WARM_UP, RAMP = 35 / 300, 5 / 300, 30 / 300, 40_000 / (250 * 352)

# Values that each method's authors have for CIFAR-100. The suites themselves explain the rows of
# sop and dividemix's lambda_u.
CIFAR100 = {
    "bootstrap": {"soft_b": 0.95, "hard_b": 0.8},
    "gce": {"q": 0.7},
    "sl": {"alpha": 6.0, "beta": 0.1},
    "elr": {"beta": 0.9, "lam": 7.0},
    "nce-rce": {"alpha": 10.0, "beta": 0.1},
    "jocor": {"lam": 0.85},
    "volminnet": {"init": -4.5, "T_optimiser": "adam", "T_lr": 0.01, "lam": 1e-4},
    "cores2": {"beta": 2.0},
    "elr-plus": {
        "beta": 0.9, "lam": 7.0, "mixup_a": 1.0, "ema_decay": 0.997, "ema_ramp_share": RAMP,
        "lam_ramp_share": RAMP, "networks": 2, "ema": True, "weigh_labels": "auto",
    },
    "ema": {"decay": 0.997, "ramp_share": RAMP},
    "sop": {"lr_u": 1.0, "lr_v": 10.0},
    "sop-plus": {"lr_u": 1.0, "lr_v": 10.0, "lam_consistency": 0.9, "lam_balance": 0.1},
    "mixup": {"a": 1.0},
    "pes": {"lambda_u": 75.0, "t1_share": T1, "t2_share": T2, "renew": "classifier"},
    "disc": {"momentum": 0.99},
    "nce-agce": {"alpha": 10.0, "beta": 0.1, "a": 1.8, "q": 3.0},
    "anl": {"alpha": 10.0, "beta": 1.0, "delta": 5e-7},
    "js": {"pi": 0.3},
    "gjs": {"pi": 0.5},
    "eps-softmax": {"beta": 1.0, "m": 1e4},
    "peer": {"ramp": "cifar100-uniform"},
    "d2l": {"alpha": 6.0, "beta": 0.1, "warmup_share": 60 / 200},
    "cal": {"first_alpha": 1.0, "alpha": 1.0, "prior_scale": 10.0},
    "co-teaching-plus": {"switch_share": 5 / 200},
    "t-revision": {"warmup_share": 15 / 200},
    "promix": {"rho": 0.5, "tau": 0.95, "a": 0.5, "b": 0.5, "warmup_share": 30 / 601},
    "unicon": {"warmup_share": 30 / 351},
    "dividemix": {"warmup_share": WARM_UP, "threshold": 0.5, "temperature": 0.5, "alpha": 4.0},
}  # fmt: skip
ON_CIFAR100 = [name for name in sorted(RUNS) if "cifar100" in name or "elr-table2" in name]


@pytest.mark.parametrize("name", ON_CIFAR100)
def test_cifar100_has_its_own_values(plan, without_data, name):
    """Check that CIFAR-100 does not get the methods' defaults, which are those for CIFAR-10."""
    specs = []
    for spec in plan(Path(name)).specs:
        if spec.condition.dataset.startswith("cifar100"):
            specs.append(spec)
    assert specs

    track = read_suite(name)[0].track
    for spec in specs:
        expected = dict(CIFAR100.get(spec.method, {}))
        if spec.method == "eps-softmax" and "asym" in name:
            # Its authors' value for asymmetric noise.
            expected["m"] = 1e2
        if track == "as-published":
            # There the shares are those of the suite's own length, which the next test counts.
            for key in [key for key in expected if key.endswith("_share")]:
                del expected[key]
        values = {key: spec.params[key] for key in expected}
        assert values == pytest.approx(expected, abs=5e-5), spec.row

        # The truncated loss of GCE selects its examples from epoch 80 on, every ten epochs.
        if spec.params.get("truncate"):
            shares = spec.params["start_share"], spec.params["every_share"]
            assert [round(share * spec.protocol.epochs) for share in shares] == [80, 10]

    if name == "cifar100n":
        assert {"pes", "dividemix", "sop"} <= {spec.method for spec in specs}


# The authors' epochs, and their steps for the ramps of elr-plus and ema.
PHASES = {
    ("dividemix", "cifar10"): {"warmup_share": 10, "ramp_share": 16},
    ("dividemix", "cifar100"): {"warmup_share": 30, "ramp_share": 16},
    ("dividemix", "clothing1m"): {"warmup_share": 1},
    ("dividemix", "webvision"): {"warmup_share": 1},
    ("pes", "cifar10"): {"t1_share": 20, "t2_share": 5, "ramp_share": 16},
    ("pes", "cifar100"): {"t1_share": 35, "t2_share": 5, "ramp_share": 16},
    ("disc", "animal10n"): {"warmup_share": 10},
    ("disc", "webvision"): {"warmup_share": 15},
    ("co-teaching", "animal10n"): {"ramp_share": 10},
    ("gce", "cifar10"): {"start_share": 40, "every_share": 10},
    ("gce", "cifar100"): {"start_share": 80, "every_share": 10},
    ("elr-plus", "cifar10"): {"ema_ramp_share": 40_000, "lam_ramp_share": 0},
    ("elr-plus", "cifar100"): {"ema_ramp_share": 40_000, "lam_ramp_share": 40_000},
    # Their average has no ramp, see the method.
    ("elr-plus", "clothing1m"): {"ema_ramp_share": 0, "lam_ramp_share": 0},
    ("elr-plus", "webvision"): {"ema_ramp_share": 0, "lam_ramp_share": 0},
    ("ema", "cifar10"): {"ramp_share": 40_000},
    ("pencil", "cifar10"): {"first_share": 70, "second_share": 130},
    ("pencil", "cifar100"): {"first_share": 70, "second_share": 130},
    ("m-dyr", "cifar10"): {"warmup_share": 105, "dynamic_share": 5, "cooling_share": 89},
    ("m-dyr", "cifar100"): {"warmup_share": 105, "dynamic_share": 5, "cooling_share": 89},
    ("co-teaching-plus", "cifar10"): {"ramp_share": 10, "switch_share": 20},
    ("co-teaching-plus", "cifar100"): {"ramp_share": 10, "switch_share": 5},
    ("promix", "cifar10"): {"warmup_share": 10, "ramp_share": 50, "late_share": 250},
    ("promix", "cifar100"): {"warmup_share": 30, "ramp_share": 50, "late_share": 250},
    ("sat", "cifar10"): {"warmup_share": 60},
    ("sat", "cifar100"): {"warmup_share": 60},
    ("selc", "clothing1m"): {"warmup_share": 5},
    ("selc", "webvision"): {"warmup_share": 40},
    ("t-revision", "cifar10"): {"warmup_share": 20, "weighted_share": 200},
    ("t-revision", "cifar100"): {"warmup_share": 15, "weighted_share": 200},
    ("volminnet", "cifar10"): {"first_drop_share": 30, "second_drop_share": 60},
    ("volminnet", "cifar100"): {"first_drop_share": 30, "second_drop_share": 60},
}


# Rows whose recipes are not known, as the suites say. They have the methods' own shares.
UNKNOWN_PHASES = {
    ("elr-table3", "joint-optim"),
    ("elr-table4", "co-teaching"),
    ("elr-table4", "d2l"),
    ("elr-table4", "incv"),
    ("elr-table4", "mentornet"),
}


@pytest.mark.parametrize("name", shipped(track="as-published"))
def test_phases_as_published_have_the_authors_epochs_and_steps(plan, without_data, name):
    """A share that fits one length or number of images is wrong on another."""
    methods = read_suite(name)[0].methods
    for spec in plan(Path(name)).specs:
        if (name, spec.row) in UNKNOWN_PHASES:
            entry = methods[spec.row]
            assert not entry.protocol
            assert not any(key.endswith("_share") for key in entry.model_extra)
            continue
        protocol, dataset = spec.protocol, spec.condition.dataset
        dataset = {"cifar10n": "cifar10", "cifar100n": "cifar100"}.get(dataset, dataset)
        shares = {key: value for key, value in spec.params.items() if key.endswith("_share")}
        if spec.method in ("forward", "backward"):
            # In lengths of the training. Only CIFAR-N's authors say it, in appendix E.3.
            assert shares == {"warmup_share": 2.0 if name.startswith("cifar1") else 1.0}
            continue
        if spec.method == "gce" and not spec.params["truncate"]:
            continue

        expected = PHASES.get((spec.method, dataset), {})
        images = 50_000 - round(50_000 * protocol.val_fraction)
        steps = protocol.epochs * math.ceil(images / protocol.batch_size)
        for key, number in expected.items():
            counts_steps = spec.method in ("elr-plus", "ema")
            length = steps if counts_steps else protocol.epochs
            found = shares.pop(key) * length
            assert found == pytest.approx(number, rel=3e-5, abs=0.01), (spec.row, dataset, key)
        # With lambda_u 0 its ramp does nothing.
        if spec.params.get("lambda_u") == 0:
            shares.pop("ramp_share", None)
        assert not shares, (spec.row, dataset)


@pytest.mark.parametrize("name", shipped(track="as-published"))
def test_what_is_published_was_trained_in_its_authors_precision(plan, without_data, name):
    # Only main_real_world.py of cswjl/eps-softmax trains in mixed precision.
    expected = "bfloat16" if name == "clothing1m-losses-published" else "float32"
    assert {spec.protocol.precision for spec in plan(Path(name)).specs} == {expected}


def test_disc_as_published_has_its_authors_views_and_the_rate_of_summed_views(plan, without_data):
    """Its losses of two views are averaged here, so the rate is twice theirs, the decay half."""
    for name, lr, augment in (
        ("animal10n-published", 0.05, "reflect-crop-flip"),
        ("webvision-published", 0.1, "crop-flip"),
    ):
        specs = [spec for spec in plan(Path(name)).specs if spec.method == "disc"]
        for spec in specs:
            protocol = spec.protocol
            assert (protocol.lr, protocol.momentum) == (2 * lr, 0.0)
            assert protocol.weight_decay == 5e-4 / 2
            assert (protocol.augment, protocol.strong) == (augment, "randaugment-10")


# Methods that ask for strong views.
STRONG = {"disc", "gjs", "pls", "promix", "sop-plus", "ssr", "unicon"}


def test_runs_that_use_strong_views_of_images_have_their_version_in_the_key(plan, without_data):
    """All other runs, and those on float features, keep the keys that they had."""
    for spec in plan(Path("cifar10n")).specs:
        wanted = 2 if spec.method in STRONG else None
        assert spec.identity().get("strong_views") == wanted

    methods = {spec.method for spec in plan(Path("digits-all")).specs}
    assert methods >= STRONG
    assert not any("strong_views" in spec.identity() for spec in plan(Path("digits-all")).specs)


def test_only_runs_on_resized_image_files_have_the_version_of_decoding_in_the_key(
    plan, without_data
):
    """Suites as published read images as their authors do, and all others keep their keys."""
    for name, wanted in (
        ("clothing1m", 2),
        ("webvision", 2),
        ("clothing1m-published", None),
        ("webvision-published", None),
        ("animal10n", None),
        ("cifar10n", None),
        ("digits-all", None),
    ):
        for spec in plan(Path(name)).specs:
            assert spec.identity().get("decoding") == wanted, name
            assert "exact_decode" not in spec.identity()["protocol"]

    changes = {"exact_decode": True}, {"resize": 0}
    for settings in changes:
        specs = plan(Path("clothing1m"), settings=settings).specs
        assert not any("decoding" in spec.identity() for spec in specs)


def test_dividemix_as_published_penalises_confidence_where_its_authors_do(plan, without_data):
    penalised = {
        "cifar10n-published": True,
        "cifar100n-published": True,
        "clothing1m-published": True,
        "elr-table2-asym": True,
        "elr-table2": False,
        "elr-table3": True,
        "elr-table4": False,
        "webvision-published": False,
    }
    for name, penalty in penalised.items():
        specs = [spec for spec in plan(Path(name)).specs if spec.method == "dividemix"]
        assert {spec.params["penalty"] for spec in specs} == {penalty}, name


STEPS = ("epochs", "milestones", "gamma")
SGD = ("lr", "momentum", "weight_decay", "batch_size")
WEB = "batches_per_epoch"
PREACT = "preact_resnet18"

# Suite, row, dataset, keys of the protocol, their values.
RECIPES = [
    ("elr-table1-cifar100-published", "elr", "cifar100", (*SGD, *STEPS),
     (0.02, 0.9, 1e-3, 128, 150, [80.0, 120.0], 0.01)),
    ("elr-table1-cifar100-published", "gce", "cifar100", (*SGD, *STEPS),
     (0.01, 0.9, 1e-4, 128, 150, [80.0, 120.0], 0.1)),
    ("elr-table1-cifar100-published", "sl-authors", "cifar100", (*SGD, *STEPS),
     (0.01, 0.9, 0.01, 128, 150, [40.0, 80.0], 0.1)),
    ("elr-table1-cifar100-published", "elr-cosine", "cifar100", ("epochs", "period", "floor"),
     (150, 10.0, 0.001)),
    ("elr-table1-cifar10-published", "gce", "cifar10", STEPS, (120, [40.0, 80.0], 0.1)),
    ("elr-table1-cifar10-published", "elr-cosine", "cifar10", ("epochs", "period"), (150, 10.0)),
    ("elr-table2", "elr-plus", "cifar10", ("model", *SGD, *STEPS),
     (PREACT, 0.02, 0.9, 5e-4, 128, 200, [150.0], 0.1)),
    ("elr-table2", "elr-plus", "cifar100", ("model", *SGD, *STEPS),
     (PREACT, 0.02, 0.9, 5e-4, 128, 250, [200.0], 0.1)),
    ("elr-table2", "dividemix", "cifar10", ("model", *SGD, *STEPS),
     (PREACT, 0.02, 0.9, 5e-4, 64, 301, [150.0], 0.1)),
    ("elr-table2", "dividemix", "cifar100", ("model", *SGD, *STEPS),
     (PREACT, 0.02, 0.9, 5e-4, 64, 301, [150.0], 0.1)),
    ("cifar-published", "sat", "cifar100", (*SGD, "epochs", "period", "floor"),
     (0.1, 0.9, 5e-4, 256, 200, 200.0, 0.0)),
    ("cifar-published", "ssr-plus", "cifar10", ("model", *SGD, "epochs", "period", "floor"),
     (PREACT, 0.02, 0.9, 5e-4, 128, 300, 300.0, 4e-4)),
    ("cifar10-losses-published", "agce", "cifar10",
     ("model", *SGD, "epochs", "period", "floor", "clip_norm", "val_fraction"),
     ("cnn8", 0.01, 0.9, 1e-4, 128, 120, 120.0, 0.0, 5.0, 0.0)),
    ("cifar10-losses-asym-published", "anl-fl", "cifar10",
     ("model", *SGD, "epochs", "period", "floor", "clip_norm", "val_fraction"),
     ("cnn8", 0.01, 0.9, 0.0, 128, 120, 120.0, 0.0, 5.0, 0.0)),
    ("cifar100-losses-published", "nce-agce", "cifar100",
     ("model", *SGD, "epochs", "period", "floor", "clip_norm", "val_fraction"),
     ("resnet34", 0.1, 0.9, 1e-5, 128, 200, 200.0, 0.0, 5.0, 0.0)),
    ("cifar100-losses-asym-published", "anl-ce", "cifar100",
     ("model", *SGD, "epochs", "period", "floor", "clip_norm", "val_fraction"),
     ("resnet34", 0.1, 0.9, 0.0, 128, 200, 200.0, 0.0, 5.0, 0.0)),
    ("clothing1m-losses-published", "eps-softmax", "clothing1m",
     (*SGD, WEB, *STEPS, "clip_norm", "weights"),
     (0.005, 0.9, 1e-3, 256, 0, 10, [5.0], 0.1, 0.0, "imagenet")),
    ("cifar100n-published", "promix", "cifar100n",
     ("model", *SGD, "epochs", "period", "floor"),
     ("resnet18", 0.05, 0.9, 5e-4, 256, 601, 601.0, 5e-5)),
    ("elr-table2", "pencil", "cifar10", (*SGD, "epochs", "starts", "rates"),
     (0.06, 0.9, 1e-4, 128, 320, [200.0, 240.0, 280.0], [0.2, 0.02, 0.002])),
    ("elr-table2", "m-dyr-h", "cifar100", (*SGD, *STEPS),
     (0.1, 0.9, 1e-4, 128, 300, [100.0, 250.0], 0.1)),
    ("elr-table2-asym", "md-dyr-sh", "cifar10", (*SGD, *STEPS),
     (0.1, 0.9, 1e-4, 128, 300, [100.0, 250.0], 0.1)),
    ("elr-table2", "co-teaching-plus", "cifar10", (*SGD, *STEPS),
     (0.02, 0.9, 5e-4, 128, 200, [150.0], 0.1)),
    ("clothing1m-published", "elr", "clothing1m", (*SGD, WEB, *STEPS),
     (1e-3, 0.9, 1e-3, 64, 2000, 10, [5.0], 0.01)),
    ("clothing1m-published", "elr-plus", "clothing1m", ("lr", WEB, *STEPS),
     (0.002, 3000, 15, [7.0], 0.1)),
    ("clothing1m-published", "dividemix", "clothing1m", ("lr", "batch_size", WEB, *STEPS),
     (0.002, 32, 1000, 81, [40.0], 0.1)),
    ("webvision-published", "elr", "webvision", (*SGD, *STEPS),
     (0.02, 0.9, 5e-4, 32, 120, [40.0, 80.0], 0.01)),
    ("webvision-published", "dividemix", "webvision", ("lr", "crop", *STEPS),
     (0.01, 299, 81, [40.0], 0.1)),
    ("webvision-published", "disc", "webvision", (*SGD, *STEPS),
     (0.2, 0.0, 2.5e-4, 32, 100, [60.0, 80.0], 0.1)),
    ("animal10n-published", "ce", "animal10n", (*SGD, *STEPS),
     (0.1, 0.9, 5e-4, 128, 100, [50.0, 75.0], 0.2)),
    ("animal10n-published", "disc", "animal10n", (*SGD, *STEPS),
     (0.1, 0.0, 2.5e-4, 64, 120, [50.0, 80.0], 0.1)),
]  # fmt: skip


def test_the_rows_of_the_published_recipes(plan, without_data):
    """Check the values that the comments of a suite give beyond the protocol of its row."""
    specs = {}
    for suite in {recipe[0] for recipe in RECIPES}:
        for spec in plan(Path(suite)).specs:
            specs.setdefault((suite, spec.row, spec.condition.dataset), spec)

    for suite, row, dataset, names, expected in RECIPES:
        values = specs[suite, row, dataset].protocol.model_dump()
        values |= values["schedule"]
        assert tuple(values[name] for name in names) == expected, (suite, row, dataset)


def test_ssr_as_published_relabels_more_on_cifar100(plan, without_data):
    """Three of the four published numbers there are for noise from 50% on."""
    found = {}
    for spec in plan(Path("cifar-published")).specs:
        if spec.method == "ssr":
            found[spec.row, spec.condition.dataset] = spec.params["theta_r"]
    assert found == {
        ("ssr", "cifar10"): 0.9,
        ("ssr", "cifar100"): 0.8,
        ("ssr-plus", "cifar10"): 0.9,
        ("ssr-plus", "cifar100"): 0.8,
    }


# Of methods whose values differ by noise or dataset, those of hitcszx/ALFs, lnl/config.py, and of
# cswjl/eps-softmax, config.py.
VALUES = {
    "cifar10-losses-published": {
        "nce-agce": {"alpha": 1.0, "beta": 4.0, "a": 6.0, "q": 1.5},
        "eps-softmax": {"alpha": 0.01, "beta": 5.0, "m": 1e5},
    },
    "cifar10-losses-asym-published": {
        "nce-agce": {"alpha": 1.0, "beta": 4.0, "a": 6.0, "q": 1.5},
        "eps-softmax": {"alpha": 0.02, "beta": 5.0, "m": 1e3},
    },
    "cifar100-losses-published": {
        "nce-agce": {"alpha": 10.0, "beta": 0.1, "a": 1.8, "q": 3.0},
        "eps-softmax": {"alpha": 0.03, "beta": 1.0, "m": 1e4},
    },
    "cifar100-losses-asym-published": {
        "nce-agce": {"alpha": 10.0, "beta": 0.1, "a": 1.8, "q": 3.0},
        "eps-softmax": {"alpha": 0.004, "beta": 1.0, "m": 1e2},
    },
    "clothing1m-losses-published": {
        "nce-agce": {"alpha": 50.0, "beta": 0.1, "a": 2.5, "q": 3.0},
        "eps-softmax": {"alpha": 0.012, "beta": 0.1, "m": 1e3},
    },
}


@pytest.mark.parametrize("suite", VALUES)
def test_losses_as_published_have_the_values_of_their_authors(suite, plan, without_data):
    found = {}
    for spec in plan(Path(suite)).specs:
        if spec.row in VALUES[suite]:
            found[spec.row] = spec.params
    assert found == VALUES[suite]


def test_the_tables_of_elr_have_the_recipes_of_the_suites_for_their_datasets():
    for table, dataset, without in (
        ("elr-table3", "clothing1m-published", {"selc"}),
        ("elr-table4", "webvision-published", {"selc", "disc"}),
    ):
        rows = read_suite(table)[0].methods
        others = read_suite(dataset)[0].methods

        assert others.keys() - rows.keys() == without
        for row in others.keys() & rows.keys():
            assert rows[row] == others[row], row


@pytest.mark.parametrize(
    ("table", "suite"),
    [
        ("ELR Table 2", "elr-table2"),
        ("ELR Table 2", "elr-table2-identical"),
        ("ELR Table 3", "elr-table3"),
        ("ELR Table 4", "elr-table4"),
        ("CIFAR-N Table 2", "cifar10n"),
        ("CIFAR-N Table 2", "cifar100n"),
    ],
)
def test_every_row_of_a_papers_table_has_its_method(table, suite):
    """Only the second, semi-supervised phase of CORES2 is none of the methods."""
    rows = read_suite(suite)[0].methods
    in_suite = {entry.method or row for row, entry in rows.items()}
    in_table = {r.name("method") for r in published.load() if r.table == table}

    assert in_table - in_suite - {"cores-star"} == set()


def test_suites_for_all_methods_have_the_same_rows():
    expected = list(read_suite("cifar10n")[0].methods)
    for name in ("cifar100n", "clothing1m", "webvision", "animal10n"):
        assert list(read_suite(name)[0].methods) == expected


def test_every_method_has_a_row_in_the_suite_of_all():
    suite, _ = read_suite("digits-all")
    in_rows = {entry.method or row for row, entry in suite.methods.items()}

    shipped_methods = set()
    for name, file in registry.method_files().items():
        if file.module.startswith("nlbench.methods."):
            shipped_methods.add(name)

    assert in_rows == shipped_methods


AS_PUBLISHED = changed(("name: trial", "name: trial\ntrack: as-published"))


def test_as_published_gives_a_method_its_own_protocol(plan):
    text = changed(
        ("{beta: 0.7, lam: 3.0}", "{protocol: {lr: 0.1, schedule: {kind: constant}}}"),
        text=AS_PUBLISHED,
    )
    by_row = {spec.row: spec.protocol for spec in plan(text).specs}
    elr = by_row["elr"]

    assert (elr.lr, elr.schedule.kind, elr.epochs) == (0.1, "constant", 2)
    assert by_row["ce"].lr == 0.05


def test_only_as_published_gives_a_method_its_own_protocol(problems_of):
    text = changed(("{beta: 0.7, lam: 3.0}", "{protocol: {lr: 0.1}}"))
    assert problems_of(text) == [
        "trial.yaml:7: methods.elr.protocol: only the track as-published gives a method its own "
        "protocol; this suite is identical"
    ]


def test_a_wrong_value_of_a_methods_protocol_is_found_there(problems_of):
    text = changed(
        ("{beta: 0.7, lam: 3.0}", "{protocol: {lr: -1}}"),
        ("epochs: 2", "epochs: 0"),
        text=AS_PUBLISHED,
    )

    assert problems_of(text) == [
        "trial.yaml:10: overrides.epochs: must be at least 1, got 0",
        "trial.yaml:8: methods.elr.protocol.lr: must be greater than 0.0, got -1",
    ]


# --- problems -------------------------------------------------------------------------------------

ELR = "{beta: 0.7, lam: 3.0}"
NOISE = "{kind: symmetric, rate: 0.4}"


@pytest.mark.parametrize(
    ("pair", "where", "said"),
    [
        (
            ("ce: {}", "cee: {}"),
            "6: methods.cee",
            "unknown method 'cee'. Did you mean 'ce'",
        ),
        (("ce: {}", "x: {method: cee}"), "6: methods.x.method", "unknown method 'cee'"),
        (("ce: {}", "ce: {q: 1}"), "6: methods.ce.q", "unknown key. It takes: nothing."),
        (("ce: {}", "ce: 3"), "6: methods.ce", "must be a mapping, got 3"),
        (("ce: {}", "3: {method: ce}"), "6: methods.3", "must be text; put it in quotes"),
        (("ce: {}", "'a|b': {method: ce}"), "6: methods.a|b", "cannot be a row's name"),
        (("ce: {}", '"a\\x1b": {method: ce}'), "6: methods.a\x1b", "cannot be printed"),
        (("ce: {}", "'': {method: ce}"), "6: methods.", "cannot be a row's name"),
        (
            (ELR, "{lamda: 3}"),
            "7: methods.elr.lamda",
            r"It takes: beta \(0.7\), lam \(3.0\). Did you mean 'lam'",
        ),
        ((ELR, "{beta: 1.0}"), "7: methods.elr.beta", "got 1.0"),
        ((ELR, "{beta: 1}"), "7: methods.elr.beta", "got 1.0"),
        ((ELR, "{lam: -1}"), "7: methods.elr.lam", "got -1.0"),
        ((ELR, "{lam: three}"), "7: methods.elr.lam", "must be a number, got 'three'"),
        ((ELR, "{lam: null}"), "7: methods.elr.lam", "must be a number, got nothing"),
        ((ELR, "{lam: .inf}"), "7: methods.elr.lam", "must be finite, got inf"),
        ((ELR, "{lam: .nan}"), "7: methods.elr.lam", "must be finite, got nan"),
        ((ELR, "{lam: true}"), "7: methods.elr.lam", "must be a number, got True"),
        ((ELR, "{lam: 2020-01-01}"), "7: methods.elr.lam", "must be a number"),
        (
            (ELR, "{method: bootstrap, kind: sof}"),
            "7: methods.elr.kind",
            "'soft' or 'hard'.*Did you mean 'soft'",
        ),
        (
            (ELR, "{per_dataset: {digit: {}}}"),
            "7: methods.elr.per_dataset.digit",
            "Did you mean 'digits'",
        ),
        (
            (ELR, "{per_dataset: {digits: {beta: 2.0}}}"),
            "7: methods.elr.per_dataset.digits.beta",
            "got 2.0",
        ),
        ((ELR, "{per_dataset: [digits]}"), "7: methods.elr.per_dataset", "must be a mapping"),
        (
            ("protocol: digits", "protocol: digit"),
            "2: protocol",
            "unknown protocol 'digit'.*Did you mean 'digits'",
        ),
        (("protocol: digits", "protocol:"), "2: protocol", "must be text, got nothing"),
        (
            ("name: digits,", "name: digit,"),
            "4: datasets.0.name",
            "unknown dataset 'digit'.*Did you mean 'digits'",
        ),
        (("name: digits,", "name: [digits],"), "4: datasets.0.name", "must be text"),
        (
            (f"noise: {NOISE}", "labels: cleen"),
            "4: datasets.0.labels",
            "no label set 'cleen'.*Did you mean 'clean'",
        ),
        ((f"noise: {NOISE}", "labels: []"), "4: datasets.0.labels", "must not be empty"),
        ((f"noise: {NOISE}", "labels: [3]"), "4: datasets.0.labels.0", "must be text, got 3"),
        (
            (f"noise: {NOISE}", f"noize: {NOISE}"),
            "4: datasets.0.noize",
            "It takes: name, path, labels, noise, .*Did you mean 'noise'",
        ),
        ((NOISE, "symmetric"), "4: datasets.0.noise.0", "must be a mapping, got 'symmetric'"),
        ((NOISE, "{}"), "4: datasets.0.noise.kind", "is required"),
        (("rate: 0.4", "rate: 1.4"), "4: datasets.0.noise.rate", r"must be in \[0, 1\], got 1.4"),
        (
            ("rate: 0.4", "rate: [0.2, 1.4]"),
            "4: datasets.0.noise.rate",
            r"must be in \[0, 1\], got 1.4",
        ),
        (("rate: 0.4", "rate: []"), "4: datasets.0.noise.rate", "must be a number"),
        (("rate: 0.4", "rate: .nan"), "4: datasets.0.noise.rate", "got nan"),
        (
            ("rate: 0.4", "rate: [0.2, 0.2]"),
            "4: datasets.0",
            "Digits symmetric 0.2 is listed twice",
        ),
        (
            ("kind: symmetric", "kind: symetric"),
            "4: datasets.0.noise.kind",
            "Did you mean 'symmetric'",
        ),
        (
            ("seeds: [0, 1]", "seeds: []"),
            "8: seeds",
            r"must not be empty; for example \[0, 1, 2, 3, 4\]",
        ),
        (("seeds: [0, 1]", "seeds: 0-4"), "8: seeds", r"must be a list, got '0-4'; for example"),
        (("seeds: [0, 1]", "seeds: 5"), "8: seeds", "must be a list, got 5"),
        (("seeds: [0, 1]", "seeds: [0, -1]"), "8: seeds", "different integers from 0 up"),
        (("seeds: [0, 1]", "seeds: [0, 0]"), "8: seeds", "different integers from 0 up"),
        (("seeds: [0, 1]", "seeds: [0.5]"), "8: seeds.0", "must be an integer, got 0.5"),
        (("seeds: [0, 1]", "sedes: [0, 1]"), "8: sedes", "unknown key.*Did you mean 'seeds'"),
        (("name: trial", "name: a/b"), "1: name", "must be of letters"),
        (
            ("name: trial", "name: trial\ntrack: identicl"),
            "2: track",
            "must be 'identical'.*Did you mean 'identical'",
        ),
        (("{epochs: 2}", "[epochs]"), "9: overrides", "must be a mapping"),
        (("{epochs: 2}", "{epoch: 2}"), "9: overrides.epoch", "unknown key.*Did you mean 'epochs'"),
        (("{epochs: 2}", "{epochs: 2.5}"), "9: overrides.epochs", "must be an integer, got 2.5"),
        (("{epochs: 2}", "{lr: .inf}"), "9: overrides.lr", "must be finite, got inf"),
        (
            ("{epochs: 2}", "{model: resne8}"),
            "9: overrides.model",
            "unknown model 'resne8'.*Did you mean 'resnet8'",
        ),
        (
            ("{epochs: 2}", "{model: torchvision/resnet18}"),
            "9: overrides.model",
            "take 3 channels, got 1",
        ),
        (
            ("{epochs: 2}", "{subset: 5000}"),
            "9: overrides.subset",
            r"in \[10, 1397\] on digits, got 5000",
        ),
        (
            ("{epochs: 2}", "{subset: 1300, val_fraction: 0.1}"),
            "9: overrides.subset",
            r"in \[10, 1257\]",
        ),
        (
            ("{epochs: 2}", "{val_fraction: 0.9999}"),
            "9: overrides.val_fraction",
            "leaves no training example",
        ),
        (
            ("{epochs: 2}", "{val_fraction: 0.0001}"),
            "9: overrides.val_fraction",
            "leaves no validation example",
        ),
        (
            ("{epochs: 2}", "{schedule: {kind: cosine}}"),
            "9: overrides.schedule",
            "unknown kind 'cosine'",
        ),
    ],
)
def test_a_problem_names_file_line_and_key(problems_of, pair, where, said):
    lines = problems_of(changed(pair))
    matching = [line for line in lines if line.startswith(f"trial.yaml:{where}: ")]
    assert len(matching) == 1, lines
    assert re.search(said, matching[0]), matching[0]


def test_missing_keys_are_all_named(problems_of):
    lines = problems_of("name: trial\n")
    assert [line.split(": ")[1] for line in lines] == ["protocol", "datasets", "methods", "seeds"]


def test_every_problem_is_reported_at_once(problems_of):
    text = changed(
        ("protocol: digits", "protocol: digitz"),
        ("rate: 0.4", "rate: 1.4"),
        ("ce: {}", "cee: {}\n  gce: {q: 2.0}"),
        (ELR, "{lamda: 1}"),
        ("seeds: [0, 1]", "seeds: []\nsede: 1"),
        ("{epochs: 2}", "{epoch: 2, lr: -1}"),
    )
    *lines, hint = problems_of(text)
    places = {line.split(": ")[1] for line in lines}

    # What helps with every unknown method is said once, at the end.
    assert hint.startswith("The methods are: ")
    assert places == {
        "protocol",
        "datasets.0.noise.rate",
        "methods.cee",
        "methods.gce.q",
        "methods.elr.lamda",
        "seeds",
        "sede",
        "overrides.epoch",
        "overrides.lr",
    }


def test_the_line_is_that_of_the_value_not_of_its_block(problems_of):
    text = changed(
        ("  elr: {beta: 0.7, lam: 3.0}", "  elr:\n    beta: 0.7\n    # a comment\n    lam: -3.0")
    )
    assert problems_of(text)[0].startswith("trial.yaml:10: methods.elr.lam: ")


def test_the_command_lines_own_values_are_blamed_on_it(problems_of):
    settings = parse_set(["epochs=0", "schedule.gamma=1", "subset=3"])
    lines = problems_of(GOOD, settings=settings)

    assert [line.partition(":")[0] for line in lines] == ["--set epochs", "--set schedule.gamma"]
    first = problems_of(GOOD, settings=parse_set(["model=resne8"]))[0]
    assert first.startswith("--set model: unknown model")


# --- a user's methods -----------------------------------------------------------------------------

OWN = """
import math
import torch
from nlbench.method import Method, Task


class Own(Method):
    def __init__(self, task: Task, {parameter}):
        super().__init__(task)
        {body}

    def loss(self, logits, batch):
        return logits.sum()
"""


@pytest.fixture
def own(tmp_path):
    """Return own(parameter, body), which gives the options that add the method `own`."""

    def make(parameter="q: float = 1.0", body="pass"):
        folder = tmp_path / "own"
        folder.mkdir()
        (folder / "own.py").write_text(OWN.format(parameter=parameter, body=body))
        return {"methods_dirs": [folder]}

    return make


WITH_OWN = changed(("ce: {}", "own: {}"))


@pytest.mark.parametrize(
    ("parameter", "body", "said"),
    [
        ("q: float = 1.0", "raise KeyError('x')", "cannot be built: KeyError: 'x' .*own.py:10"),
        ("q: float = 1.0", "self.told_rate = task.noise_rate", "not told noise_rate: declare it"),
        (
            "q: float = 1.0",
            "self.told = ('colour',)",
            "told names 'colour'; a method can be told: noise_rate, T",
        ),
        ("q: float = math.inf", "pass", "the default of q must be finite, got inf"),
        ("q: float = None", "pass", "the default of q must be a number, got nothing"),
        ("q: torch.Tensor = 1", "pass", "which a suite cannot give"),
        ("q: float", "pass", "needs q, which has no default"),
        ("q=1.0", "pass", "argument 'q' must be a named argument with a type annotation"),
    ],
)
def test_a_mistake_in_a_method_is_said_before_anything_runs(
    problems_of, own, parameter, body, said
):
    lines = problems_of(WITH_OWN, **own(parameter, body))
    assert lines[0].startswith("trial.yaml:6: methods.own: ")
    assert re.search(said, lines[0]), lines


def test_a_default_and_the_same_value_written_out_are_one_run(plan, own):
    options = own("q: float = 3")
    written_out = changed(("ce: {}", "own: {q: 3.0}"))
    assert keys(plan(WITH_OWN, **options)) == keys(plan(written_out, **options))


def test_a_method_that_is_told_more_says_so(plan, own):
    options = own("T: bool = False", "self.told = ('T',) if T else ()")
    text = changed(("ce: {}", "own: {}\n  own-true: {method: own, T: true}"))
    assert plan(text, **options).told == {"own": [], "own-true": ["T"], "elr": []}


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            changed(("  ce: {}", "  ce: {}\n  ce: {}")),
            "trial.yaml:7:3: duplicate key 'ce'; keep one",
        ),
        (
            changed(("seeds: [0, 1]", "seeds: [0, 1")),
            r"trial.yaml:9:10: not valid YAML: .*begins in line 8",
        ),
        (
            changed(("  ce: {}", "\tce: {}")),
            r"trial.yaml:6:1: not valid YAML: .*indent with spaces",
        ),
        (
            changed(("ce: {}", "ce: *none")),
            r"trial.yaml:6:7: not valid YAML: .*undefined alias 'none'",
        ),
        (
            changed(("seeds: [0, 1]", "seeds: [2020-13-45]")),
            "trial.yaml: not valid YAML: month must be in",
        ),
        (f"{GOOD}---\n{GOOD}", r"trial.yaml:10:1: not valid YAML: .*another document"),
        ("", "trial.yaml: a suite is a mapping with .*the file is empty"),
        ("- a\n- b\n", r"trial.yaml: a suite is a mapping with .*this is \['a', 'b'\]"),
        ("hello\n", "this is 'hello'"),
        ("[" * 1000, "trial.yaml:1:51: lists or mappings are nested more than 50 levels deep"),
        (
            "name: trial\ndescription: größe\n".encode("latin-1"),
            "trial.yaml:2: not UTF-8 text .*save it as UTF-8",
        ),
        (GOOD.encode("utf-16"), "not UTF-8 text"),
        ("name: trial\nseeds: \x00\n", "trial.yaml:2:8: not valid YAML: the character"),
    ],
)
def test_a_file_that_is_no_suite(tmp_path, content, said):
    path = tmp_path / "trial.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SuiteError, match=said):
        read_suite(path)


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n")])
def test_what_editors_on_windows_write_is_read(plan, change):
    assert keys(plan(change(GOOD))) == keys(plan())


def test_yaml_reads_numbers_as_people_write_them(plan):
    spec = plan(changed(("{epochs: 2}", "{epochs: 2, weight_decay: 5e-4, lr: 1e-2}"))).specs[0]
    assert (spec.protocol.weight_decay, spec.protocol.lr) == (0.0005, 0.01)


def test_a_suite_that_is_not_there(tmp_path):
    (tmp_path / "mysuite.yaml").write_text(GOOD)
    message = r"unknown suite 'quik'.* nlbench comes with: .*Did you mean 'quick'"
    with pytest.raises(SuiteError, match=message):
        read_suite("quik")

    with pytest.raises(SuiteError, match=r"there is no such file.*Did you mean 'mysuite.yaml'"):
        read_suite(tmp_path / "mysuit.yaml")
    with pytest.raises(SuiteError, match="that is a folder"):
        read_suite(tmp_path)
