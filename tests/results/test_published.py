"""The published numbers themselves, what they may be compared with, and the tables that print them beside records."""

import csv
import io
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import ttest_ind_from_stats
from typer.testing import CliRunner

from nlbench.cli.app import app
from nlbench.code_hash import code_hash
from nlbench.errors import SuiteError
from nlbench.plan.spec import key_of
from nlbench.registry import method_files
from nlbench.results import notes, statistics
from nlbench.results import table as tables
from nlbench.results.published import comparable
from nlbench.results.published import records as published
from nlbench.results.published.comparable import MeasuredSetting
from nlbench.results.published.records import Published
from nlbench.results.record import RunRecord
from nlbench.results.statistics import Sample
from nlbench.results.store import Store

# Our methods, and the sources' that have no counterpart and keep their names.
OURS = {
    "backward", "bootstrap", "ce", "co-teaching", "cores2", "disc", "dividemix", "elr", "elr-plus", "ema", "forward",
    "gce", "gls", "jocor", "mixup", "nce-rce", "pes", "sl", "sop", "sop-plus", "volminnet",
}  # fmt: skip
KEPT = {
    "active-bias", "agce", "anl-ce", "augdesc", "c2d", "cal", "ce-eps-mae", "ce-eps-mae-semi", "ce-simclr-init",
    "co-teaching-plus", "cores-star", "d2l", "decoupling", "dividemix-c2d", "dropout", "elr-plus-c2d", "f-div",
    "iterative-cv", "joint-optim", "ldr-kl", "longremix", "m-dyr-h", "mentormix", "mentornet", "metacleaner", "mlnt",
    "moit", "nce-agce", "nested", "nested-co-teaching", "ngc", "odd", "peer-loss", "pencil", "plc", "promix",
    "proto-semi", "rlnlc", "rrl", "sat", "self-learning", "selfie", "ssr", "ssr-plus", "sure", "t-revision", "ulc",
}  # fmt: skip
MODELS = {
    "resnet34", "preact_resnet18", "torchvision/resnet34", "torchvision/resnet50", "torchvision/vgg19_bn",
    "timm/inception_resnet_v2", "unknown", "cnn8", "densenet-25-12", "preact-resnet32", "vgg19", "wrn-28-10",
}  # fmt: skip
DATASETS = {
    "cifar10",
    "cifar100",
    "cifar10n",
    "cifar100n",
    "clothing1m",
    "webvision",
    "ilsvrc12",
    "animal10n",
}
TEXT = [f for f in Published.__dataclass_fields__ if f not in ("mean", "std", "seeds")]


# --- the file -----------------------------------------------------------------------------------------------------


def test_every_record_is_sound():
    records = published.load()
    assert len(records) == 1193
    for r in records:
        assert 0 <= r.mean <= 100
        assert r.std is None or 0 <= r.std < 15
        assert r.seeds is None or r.seeds >= 2
        assert r.table
        assert len(r.source) > 10
        assert r.selection in published.SELECTIONS
        assert r.metric in ("top1", "top5")
        assert r.noise_definition in ("", "symmetric", "symmetric-inclusive")
        assert r.std_kind in ("", "population", "sample")
        assert "alr" not in (r.method, r.name("method"))  # none could be obtained
        assert not any(word in r.note for word in ("/work", ".md", "selection="))
    assert (
        len({tuple(getattr(r, f) for f in TEXT if f != "note") for r in records}) == 1193
    )  # none is there twice


@pytest.mark.parametrize(
    ("table", "method", "noise", "selection", "printed"),
    [
        ("ELR Table 1", "gce", "sym-0.4", "", "87.13±0.22"),
        ("CIFAR-N Table 2", "ce", "worst", "best", "77.69±1.55"),
        ("ReScience logs, last epoch", "ce", "worst", "last", "68.26±1.08"),
        ("ELR Table 2", "elr-plus", "asym-0.4", "noisy-val", "92.70"),
    ],
)
def test_some_cells(table, method, noise, selection, printed):
    wanted = table, method, noise, selection
    found = [
        r
        for r in published.load()
        if (r.table, r.method, r.noise, r.selection) == wanted
        and r.dataset in ("cifar10", "cifar10n")
    ]
    assert [r.text() for r in found] == [printed]


def test_every_name_is_one_of_ours_or_kept_on_purpose():
    records = published.load()
    assert {r.name("method") for r in records} == OURS | KEPT
    assert not OURS & KEPT
    assert {r.name("model") for r in records} == MODELS
    assert {r.name("dataset") for r in records} == DATASETS
    for what, column in (("method", "method"), ("model", "architecture"), ("dataset", "dataset")):
        assert set(published.NAMES[what]) <= {getattr(r, column) for r in records}
    assert set(published.NAMES["model"]) >= published.PRETRAINED


def test_it_loads_at_once():
    seconds = []
    for _ in range(5):  # the fastest of some, for the machine may be busy
        begun = time.perf_counter()
        published.load.__wrapped__()
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.1


def test_it_is_beside_the_module():
    assert Path(published.__file__).with_name("published.csv").is_file()


# --- what may be compared -----------------------------------------------------------------------------------------


def one(**wanted):
    found = [r for r in published.load() if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(found) == 1, found
    return found[0]


ELR = one(
    table="ELR Table 1", dataset="cifar10", noise="sym-0.4", method="elr", variant="step schedule"
)
CIFAR = {
    "model": "resnet34", "epochs": 120, "lr": 0.02, "weight_decay": 1e-3, "val_fraction": 0.1, "subset": 0,
    "schedule": {"kind": "multistep", "milestones": [40.0, 80.0], "gamma": 0.01},
}  # fmt: skip
CIFARN = {**CIFAR, "epochs": 100, "lr": 0.1, "weight_decay": 5e-4, "val_fraction": 0.0}
SPEC = {
    "method": "elr", "params": {"beta": 0.7, "lam": 3.0}, "dataset": "cifar10", "labels": "clean",
    "noise": {"kind": "symmetric-inclusive", "rate": 0.4}, "protocol": CIFAR,
}  # fmt: skip
SETTING = MeasuredSetting.of(SPEC, {"num_train": 45000})


def test_what_agrees_in_all_may_be_compared():
    assert SETTING.differences(ELR) == ([], [])
    assert ELR in SETTING.records()
    assert comparable.nearest(SETTING.records(), SETTING) == [ELR]


@pytest.mark.parametrize(
    ("setting", "record", "known", "unknown"),
    [
        ({"definition": "symmetric"}, ELR, ["noise: symmetric here, symmetric-inclusive there"], []),
        ({}, replace(ELR, noise_definition=""), [], ["noise: not known of the source"]),
        ({"protocol": {**CIFAR, "model": "cnn3"}}, ELR, ["network: cnn3 here, resnet34 there"], []),
        ({}, replace(ELR, architecture="unknown"), [], ["network: not known of the source"]),
        ({}, replace(ELR, architecture="resnet34-imagenet-stem"),
         ["network: resnet34 here, torchvision/resnet34 there"], []),
        ({"protocol": {**CIFAR, "epochs": 2}}, ELR, ["epochs: 2 here, 120 there"], []),
        ({}, replace(ELR, table="another"), [],
         ["epochs: not known of the source", "training images: not known of the source"]),
        ({"num_train": 50000}, ELR, ["training images: 50,000 here, 45,000 there"], []),
        ({"num_train": None}, ELR, [], ["training images: not in the record here"]),
        ({"protocol": {**CIFAR, "lr": 0.1}}, ELR, ["learning rate: 0.1 here, 0.02 there"], []),
        ({"protocol": {**CIFAR, "weight_decay": 0.0}}, ELR, ["weight decay: 0 here, 0.001 there"], []),
        ({"protocol": {**CIFAR, "schedule": {"kind": "constant"}}}, ELR,
         ["schedule: constant here, multistep there"], []),
        ({}, replace(ELR, variant="cosine schedule"),
         ["epochs: 120 here, 150 there", "schedule: multistep here, cosine-restarts there"], []),
    ],
    ids=str,
)  # fmt: skip
def test_each_reason_against_a_difference(setting, record, known, unknown):
    assert replace(SETTING, **setting).differences(record) == (known, unknown)


def test_asymmetric_noise_is_not_one_thing():
    spec = {**SPEC, "noise": {"kind": "asymmetric", "rate": 0.4}}
    elr = one(
        table="ELR Table 1",
        dataset="cifar10",
        noise="asym-0.4",
        method="elr",
        variant="step schedule",
    )
    setting = MeasuredSetting.of(spec, {"num_train": 45000})
    assert elr in setting.records()
    assert setting.differences(elr) == (
        ["noise: asymmetric here, asymmetric with flips taken back there"],
        [],
    )
    hundred = one(
        table="ELR Table 1",
        dataset="cifar100",
        noise="asym-0.4",
        method="elr",
        variant="step schedule",
    )
    for kind in ("superclass", "block", "swap"):
        spec = {**SPEC, "dataset": "cifar100", "noise": {"kind": f"asymmetric-{kind}", "rate": 0.4}}
        known, unknown = MeasuredSetting.of(spec, {"num_train": 45000}).differences(hundred)
        assert unknown == ["noise: not known of the source"]
        assert known == ["epochs: 120 here, 150 there"]


@pytest.mark.parametrize(
    ("method", "params", "known", "unknown", "shown"),
    [
        ("bootstrap", {"kind": "hard"}, [], ["form of the method: not known of the source"], True),
        ("gce", {"truncate": False}, [], ["form of the method: not known of the source"], True),
        ("gce", {}, [], ["form of the method: not known of the source"], True),
        ("forward", {"T": False}, [], [], True),
        (
            "forward",
            {"T": True},
            ["form of the method: T given here, T estimated there"],
            [],
            False,
        ),
        ("forward", {}, [], ["form of the method: not in the record here"], True),
    ],
)
def test_forms_of_a_method_are_not_mixed(method, params, known, unknown, shown):
    table = "ELR Table 1" if method == "bootstrap" else "CIFAR-N Table 2"
    dataset, noise = ("cifar10", "sym-0.4") if method == "bootstrap" else ("cifar10n", "worst")
    record = one(table=table, dataset=dataset, noise=noise, method=method)
    spec = {"method": method, "params": params, "dataset": dataset, "protocol": CIFARN}
    spec |= (
        {"noise": SPEC["noise"]} if method == "bootstrap" else {"labels": "worst", "noise": None}
    )
    setting = MeasuredSetting.of(spec, {"num_train": 50000})
    against = setting.differences(record)
    assert [r for r in against[0] if "form" in r] == known
    assert [r for r in against[1] if "form" in r] == unknown
    assert (record in setting.records()) == shown


def test_the_warm_up_that_estimates_T_is_compared():
    def differences(method, share):
        spec = {
            "method": method,
            "dataset": "cifar10n",
            "labels": "worst",
            "noise": None,
            "protocol": CIFARN,
        }
        setting = MeasuredSetting.of(
            {**spec, "params": {"T": False, "warmup_share": share}}, {"num_train": 50000}
        )
        return setting.differences(
            one(table="CIFAR-N Table 2", dataset="cifar10n", noise="worst", method=method)
        )

    assert differences("forward", 2.0) == ([], [])
    assert differences("forward", 1.0) == (["trainings before, to estimate T: 1 here, 2 there"], [])
    assert differences("backward", 2.0) == (
        [],
        ["trainings before, to estimate T: not known of the source"],
    )


def test_smoothing_and_the_parts_of_elr_plus_find_their_own_rows():
    gls = {"method": "gls", "params": {"rate": -1.0}, "dataset": "cifar10n", "labels": "worst"}
    assert [r.method for r in MeasuredSetting.of(gls, {}).records()] == ["negative-ls"]
    assert [
        r.method for r in MeasuredSetting.of({**gls, "params": {"rate": 0.1}}, {}).records()
    ] == ["els"]
    parts = {"networks": 1, "mixup_a": 1.0, "ema": True, "lam": 3.0}
    plus = {**SPEC, "method": "elr-plus", "params": parts}
    assert [r.text() for r in MeasuredSetting.of(plus, {}).records()] == [
        "93.04±0.12"
    ]  # Table 5, one network
    whole = MeasuredSetting.of({**plus, "params": {**parts, "networks": 2}}, {}).records()
    assert [r.text() for r in whole] == ["93.68±0.51"]
    assert MeasuredSetting.of({**plus, "params": {**parts, "lam": 0.0}}, {}).records() == []


def test_elr_plus_drew_noise_twice():
    record = one(
        table="ELR Table 2",
        dataset="cifar10",
        noise="sym-0.5",
        method="elr-plus",
        selection="noisy-val",
    )
    protocol = {**CIFAR, "model": "preact_resnet18", "epochs": 200, "weight_decay": 5e-4}
    params = {"networks": 2, "mixup_a": 1.0, "ema": True, "lam": 3.0}
    spec = {**SPEC, "method": "elr-plus", "params": params, "protocol": protocol}
    spec["noise"] = {"kind": "symmetric-inclusive", "rate": 0.5}
    setting = MeasuredSetting.of(spec, {"num_train": 45000})
    assert setting.differences(record) == (
        ["its two networks each drew their own noise and split"],
        [],
    )


def test_clean_labels_of_a_human_dataset_are_the_official_ones():
    setting = MeasuredSetting.of(
        {"method": "ce", "dataset": "cifar10n", "labels": "clean", "noise": None}, {}
    )
    assert {r.dataset for r in setting.records()} == {"cifar10"}
    assert {r.noise for r in setting.records()} == {"clean"}
    web = MeasuredSetting.of(
        {"method": "ce", "dataset": "clothing1m", "labels": "noisy", "noise": None}, {}
    )
    assert {r.noise for r in web.records()} == {"real"}


@pytest.mark.parametrize(
    "spec",
    [
        {}, {"noise": {}}, {"noise": {"kind": "matrix", "sha256": "x"}}, {"noise": {"kind": "asymmetric-other"}},
        {"noise": {"kind": "symmetric", "rate": "half"}}, {"params": None, "method": "gce"}, {"params": [1]},
        {"method": "gls", "params": {"rate": "x"}}, {"protocol": None}, {"protocol": {"schedule": "constant"}},
        {"dataset": None, "labels": None}, {"noise": "symmetric"},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_an_unknown_kind_is_compared_with_nothing(spec):
    spec = {"method": "elr", "dataset": "cifar10", **spec}
    setting = MeasuredSetting.of(spec, {})
    assert any(setting.differences(ELR))
    if spec.get("noise") or not spec["dataset"]:
        assert setting.records() == []


def sample(record):
    return Sample(record.mean, record.sample_std, record.seeds)


def test_the_welch_test_by_hand():
    # 0.05 / 5 + 0.0289 / 5 = 0.01578; its square over (0.01^2 + 0.00578^2) / 4 is 7.466 degrees of freedom.
    found = statistics.welch(Sample(89.10, 0.05**0.5, 5), sample(ELR))
    assert found.difference == pytest.approx(-0.05)
    assert found.se == pytest.approx(0.01578**0.5)
    assert found.df == pytest.approx(7.4660, abs=1e-4)
    assert found.p == pytest.approx(
        ttest_ind_from_stats(89.1, 0.05**0.5, 5, 89.15, 0.17, 5, equal_var=False).pvalue
    )


def test_a_population_std_is_made_a_sample_std():
    record = one(table="ReScience CIFAR-N table", dataset="cifar10n", noise="worst", method="ce")
    assert (record.std, record.seeds, record.std_kind) == (0.08, 3, "population")
    assert record.sample_std == pytest.approx(0.08 * 1.5**0.5)
    other = ttest_ind_from_stats(84.0, 0.5, 3, 83.91, 0.08 * 1.5**0.5, 3, equal_var=False)
    assert statistics.welch(Sample(84.0, 0.5, 3), sample(record)).p == pytest.approx(other.pvalue)
    assert replace(record, seeds=None).sample_std == 0.08


@pytest.mark.parametrize(
    ("std", "n", "changes"),
    [
        (None, 1, {}), (0.2, 1, {}), (0.2, 5, {"std": None}), (0.2, 5, {"seeds": None}), (0.2, 5, {"seeds": 1}),
        (0.0, 5, {"std": 0.0}),
    ],
)  # fmt: skip
def test_what_cannot_be_tested(std, n, changes):
    found = statistics.welch(Sample(90.0, std, n), sample(replace(ELR, **changes)))
    assert found.difference == pytest.approx(0.85)
    assert (found.se, found.df, found.p) == (None, None, None)


def test_one_number_in_several_places_counts_once():
    copy = replace(ELR, table="ELR Table 1", source="another list of numbers", note="copied")
    assert comparable.nearest([ELR, copy], SETTING) == [ELR]
    others = [replace(ELR, mean=80.0 + i) for i in range(5)]
    assert comparable.nearest(others, SETTING) == others[:3]
    away = replace(SETTING, num_train=1)
    assert comparable.nearest(others, away) == others[:2]
    assert comparable.nearest([], SETTING) == []


# --- the command --------------------------------------------------------------------------------------------------


def call(*arguments):
    return CliRunner().invoke(app, ["published", *arguments], catch_exceptions=False)


def test_the_command_prints_numbers_with_their_sources():
    text = call(
        "--dataset", "cifar10n", "--method", "ce", "--noise", "worst", "--model", "resnet34"
    ).stdout
    assert text.startswith("**Published numbers: 5, test accuracy in %")
    assert "| best (oracle) | 77.69±1.55 |    5 |    [1] |" in text
    assert (
        "- [1] CIFAR-N Table 2: Wei, Zhu, Cheng, Liu, Niu, Liu, ICLR 2022 (arXiv 2110.12088)"
        in text
    )
    assert "not stated whether its std is of the sample or the population" in text
    rows = list(csv.DictReader(io.StringIO(call("--format", "csv").stdout)))
    assert len(rows) == 1193
    with open(
        Path(published.__file__).with_name("published.csv"), newline="", encoding="utf-8"
    ) as file:
        for printed, there in zip(rows, csv.DictReader(file), strict=True):
            assert {k: v for k, v in printed.items() if k in TEXT} == {
                k: v for k, v in there.items() if k in TEXT
            }


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--method", "pes"], 37), (["--method", "pes-semi"], 37), (["--model", "preact_resnet18"], 186),
        (["--model", "preactresnet18"], 186), (["--noise", "asym"], 139), (["--noise", "symmetric"], 56),
        (["--dataset", "webvision"], 43),
    ],
)  # fmt: skip
def test_names_of_both_sides_are_understood(arguments, count):
    assert len(call(*arguments, "--format", "csv").stdout.splitlines()) == count + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "cifar10m"], "--dataset cifar10m: no published number has it. There are: cifar10, "),
        (["--method", "elrplus"], "Did you mean 'elr-plus'?"),
        (["--method", "alr"], "no published number has it"),
        (["--noise", "wurst"], "Did you mean 'worst'?"),
        (["--model", "resnet43"], "Did you mean 'resnet34'?"),
        (["--dataset", "clothing1m", "--noise", "worst"], "number has all of --dataset clothing1m, --noise worst"),
        (["--format", "latex"], "csv"),
    ],
)  # fmt: skip
def test_a_name_that_no_number_has_is_refused(arguments, message):
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_the_command_does_without_torch_and_at_once():
    script = (
        "import sys, time\nfrom nlbench import cli\nsys.argv = ['nlbench', 'published']\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'pandas', 'scipy'} & set(sys.modules)\n"
        "print(time.process_time(), file=sys.stderr)\n"  # of the whole process; the machine may be busy with others
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stderr) < 0.6  # 0.24 as measured


# --- tables -------------------------------------------------------------------------------------------------------


def record(
    row, seed, metrics, spec, *, num_train=45000, status="done", noise=None, code=None, device="cpu"
):
    spec = {**spec, "method": spec.get("method", row), "seed": seed}
    facts = {
        "noise_rate_train": 0.36, "noise_rate_full": 0.36, "redrawn": True, "num_train": num_train,
        "num_val": 50000 - num_train, "num_test": 10000, **(noise or {}),
    }  # fmt: skip
    return RunRecord(
        key=key_of(spec),
        status=status,
        spec=spec,
        metrics=metrics,
        noise=facts if status == "done" else {},
        timing={},
        environment={"device": device, "precision": "bfloat16"},
        method={"told": [], "networks": 1, "forward_passes": 1.0},
        code=code or code_hash(method_files()[spec["method"]].path, "resnet34", spec["dataset"]),
    )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def planned(
    store, records, rows=(), seeds=(0, 1, 2, 3, 4), title="CIFAR-10 symmetric-inclusive 0.4"
):
    """A plan of one condition with a cell for each row and seed; `records` are (row, record)."""
    for _, r in records:
        store.write(r, [])
    names = list(dict.fromkeys([row for row, _ in records] + list(rows)))
    keys = {(row, r.spec["seed"]): r.key for row, r in records}
    methods = {row: r.spec["method"] for row, r in records}
    return {
        "suite": "s", "track": "identical", "protocol": "cifar", "conditions": [title], "seeds": list(seeds),
        "rows": [{"row": row, "method": methods.get(row, row), "told": [], "networks": 1} for row in names],
        "cells": [
            {"row": row, "condition": 0, "seed": seed, "key": keys.get((row, seed), "0" * 16)}
            for row in names for seed in seeds
        ],
    }  # fmt: skip


def table(text):
    """Return the headings, and the cells of each line by its first cell."""
    lines = [
        [part.strip() for part in line.strip("|").split("|")]
        for line in text.splitlines()
        if line[:2] == "| "
    ]
    return lines[0], {line[0]: line[1:] for line in lines[2:]}


SELECTED = [
    0.8900,
    0.8920,
    0.8910,
    0.8940,
    0.8880,
]  # mean 89.10, squares of the deviations 0.20, std 0.2236


def elr_runs(**changes):
    spec = {**SPEC, **changes.pop("spec", {})}
    return [
        (
            "elr",
            record("elr", s, {"last": v - 0.01, "best": v + 0.01, "selected": v}, spec, **changes),
        )
        for s, v in enumerate(SELECTED)
    ]


def test_elr_beside_its_paper(store):
    text = tables.render(planned(store, elr_runs()), store, published=True)
    heads, rows = table(text)
    unstated = "published, by another or no stated rule"
    assert heads == [
        "method",
        "last epoch",
        "selected",
        "published",
        "minus published",
        unstated,
        "nets",
    ]
    assert rows["elr"] == [
        "88.10±0.22", "89.10±0.22", "89.15±0.17 [1]", "-0.05 (p 0.702)", "89.15 [2]; 91.43 [2]", "1",
    ]  # fmt: skip
    assert (
        "- [1] ELR Table 1: Liu, Niles-Weed, Razavian, Fernandez-Granda, NeurIPS 2020 (arXiv 2007.00151)"
        in text
    )
    assert "5 runs; not stated whether its std is of the sample or the population" in text
    assert "- [2] ELR official README" in text
    assert "p-value of Welch's t test (two-sided, unadjusted)" in text
    assert (
        "Published numbers that are not shown, because their setting is less similar: 2;" in text
    )  # the cosine row
    assert "A letter gives" not in text
    assert "CIFAR-N" not in text


def test_the_same_as_csv_and_latex(store):
    plan = planned(store, elr_runs())
    rows = list(csv.DictReader(io.StringIO(tables.render(plan, store, fmt="csv", published=True))))
    selected = next(r for r in rows if r["metric"] == "selected")
    assert (selected["published"], selected["published_std"], selected["published_n"]) == (
        "0.8915",
        "0.0017",
        "5",
    )
    assert selected["published_from"].startswith("ELR Table 1: Liu")
    assert float(selected["minus_published"]) == pytest.approx(-0.0005)
    assert float(selected["se"]) == pytest.approx(0.01578**0.5 / 100)
    assert float(selected["df"]) == pytest.approx(7.4660, abs=1e-4)
    assert float(selected["p_welch"]) == pytest.approx(0.702, abs=5e-4)
    assert selected["why_not_or_marks"] == ""
    last = next(r for r in rows if r["metric"] == "last")
    assert (last["published"], last["minus_published"]) == ("", "")
    unstated = next(r for r in rows if r["metric"] == "unstated")
    assert (unstated["mean"], unstated["published"], unstated["minus_published"]) == (
        "",
        "0.8915",
        "",
    )
    assert unstated["also_published"] == "91.43 ELR official README"
    plain = tables.render(plan, store, fmt="csv").splitlines()[0]
    assert "published" not in plain
    latex = tables.render(plan, store, fmt="latex", published=True)
    body = latex.split(r"\begin{tabular}")[1].split(r"\end{tabular}")[0]
    assert r"elr & 88.10$\pm$0.22 & 89.10$\pm$0.22 & 89.15$\pm$0.17 [1] & -0.05 (p 0.702) &" in body
    assert "% [1] ELR Table 1" in latex


def test_one_metric_alone(store):
    plan = planned(store, elr_runs())
    assert table(tables.render(plan, store, published=True, metric="best"))[0][:2] == [
        "method",
        "best (oracle)",
    ]
    heads, _ = table(tables.render(plan, store, published=True, details=True))
    assert heads[:4] == ["method", "last epoch", "best (oracle)", "selected"]


def test_letters_say_why_there_is_no_difference(store):
    spec = {
        "protocol": {**CIFAR, "model": "cnn3", "epochs": 20},
        "noise": {"kind": "symmetric", "rate": 0.4},
    }
    text = tables.render(
        planned(store, elr_runs(spec=spec, num_train=20000)), store, published=True
    )
    assert table(text)[1]["elr"][3] == "a,b,c,d"
    assert (
        "(a) noise: symmetric here, symmetric-inclusive there; (b) network: cnn3 here, resnet34 there; "
        "(c) epochs: 20 here, 120 there; (d) training images: 20,000 here, 45,000 there." in text
    )
    assert "Welch" not in text


def test_copies_stale_and_failed_runs_are_marked(store):
    runs = elr_runs(noise={"variant": "JPEG"}, code="other")
    runs[2] = ("elr", record("elr", 2, {}, SPEC, status="diverged"))
    text = tables.render(planned(store, runs), store, published=True)
    assert (
        table(text)[1]["elr"][1] == "89.10±0.26 (4/5, !1)*"
    )  # squares of the deviations 0.20, over 3
    assert table(text)[1]["elr"][3].startswith("-0.05*†! (p 0.7")
    assert "† measured on a copy of the images, not on the official pixels." in text
    assert "* made by another version of the code" in text
    assert "! number of runs that failed or diverged" in text


WORST = {
    "method": "ce",
    "params": {},
    "dataset": "cifar10n",
    "labels": "worst",
    "noise": None,
    "protocol": CIFARN,
}


def ce_runs(seeds=(0, 1, 2), **spec):
    values = [(0.68, 0.835), (0.685, 0.84), (0.69, 0.845)]
    return [
        (
            "ce",
            record(
                "ce",
                s,
                {"last": values[s][0], "best": values[s][1]},
                {**WORST, **spec},
                num_train=50000,
            ),
        )
        for s in seeds
    ]


def test_ce_beside_several_sources(store):
    plan = planned(store, ce_runs(), seeds=(0, 1, 2), title="CIFAR-10N worst")
    text = tables.render(plan, store, published=True)
    heads, rows = table(text)
    assert heads == [
        "method", "last epoch", "published", "minus published", "best (oracle)", "published", "minus published", "nets",
    ]  # fmt: skip
    assert rows["ce"] == [
        "68.50±0.50", "68.26±1.08 [1]; 68.39 [2]", "+0.24 (p 0.751) [1]; +0.11 (not testable) [2]",
        "84.00±0.50", "77.69±1.55 [3]; 83.91±0.08 [4]; 84.03 [2]",
        "+6.31 (p <0.001) [3]; +0.09 (p 0.787) [4]; -0.03 (not testable) [2]", "1",
    ]  # fmt: skip
    for warning in published.CIFARN_WARNINGS:
        assert warning in text
    assert "its std is the population std; tests use the sample std that it implies" in text
    assert "not testable: a std or the number of runs is not known" in text


def test_what_a_source_does_not_say_is_a_reason_against_a_difference(store):
    spec = {**WORST, "method": "gce", "params": {"truncate": False}}
    run = record("gce", 0, {"last": 0.8, "best": 0.81}, spec, num_train=50000)
    plan = planned(store, [("gce", run)], seeds=(0,), title="CIFAR-10N worst")
    text = tables.render(plan, store, published=True)
    assert table(text)[1]["gce"][1:4] == ["81.00", "80.66±0.35 [1]", "a,b"]
    assert (
        "(a) epochs: not known of the source; (b) form of the method: not known of the source."
        in text
    )
    assert "minus published: " not in text


def test_remarks_name_the_methods_they_are_about(store):
    plan = planned(store, elr_runs(), rows=("gce", "sl"))
    text = tables.render(plan, store, published=True)
    line = next(line for line in text.splitlines() if line.startswith("- [1] ELR Table 1"))
    assert "selection rule from the official code (elr); noise redrawn for each run; " in line
    assert (
        "copied from the GCE paper (gce); its selection rule is not verified (gce); printed as GSE (gce)"
        in line
    )
    assert line.endswith("re-run by the ELR authors (sl).")


def test_one_run_is_not_testable(store):
    text = tables.render(planned(store, ce_runs(seeds=(1,)), seeds=(1,)), store, published=True)
    assert table(text)[1]["ce"][2] == "+0.24 (not testable) [1]; +0.11 (not testable) [2]"


def test_a_row_that_did_not_run_still_has_its_published_number(store):
    plan = planned(
        store, ce_runs(), rows=("elr", "alr", "gce"), seeds=(0, 1, 2), title="CIFAR-10N worst"
    )
    rows = table(tables.render(plan, store, published=True))[1]
    assert rows["elr"][3:6] == ["-", "83.58±1.13 [3]", ""]
    assert rows["gce"][3:6] == ["-", "80.66±0.35 [3]", ""]
    assert rows["alr"][3:6] == ["-", "-", ""]


def test_data_without_published_numbers_says_so(store):
    spec = {**SPEC, "dataset": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}
    text = tables.render(planned(store, elr_runs(spec=spec)), store, published=True)
    assert table(text)[0] == ["method", "last epoch", "nets"]
    assert "- No published numbers are known for these methods on this data." in text
    empty = tables.render(planned(store, [], rows=("ce",)), store, published=True)
    assert table(empty)[1]["ce"] == ["-", "1"]


@pytest.mark.parametrize("form", ["md", "csv", "latex"])
@pytest.mark.parametrize(
    "spec",
    [
        {"noise": {"kind": "instance-dependent", "rate": 0.4}}, {"noise": {"kind": "file", "sha256": "x"}},
        {"dataset": "made-up", "labels": "other", "noise": None}, {"params": None}, {"protocol": {"model": "resnet34"}},
        {"noise": {"kind": "symmetric-inclusive"}}, {"noise": "odd"},
    ],
    ids=str,
)  # fmt: skip
def test_an_unexpected_record_does_no_harm(store, spec, form):
    runs = elr_runs(spec=spec)
    assert "elr" in tables.render(
        planned(store, runs), store, published=True, fmt=form, metric=None
    )


def test_letters_go_on_after_z():
    keys = notes.Keys("ab")
    assert [keys.of(text) for text in ("x", "y", "z", "x", "w")] == ["a", "b", "b2", "a", "b3"]


def test_an_unknown_metric_is_refused_as_ever(store):
    with pytest.raises(SuiteError, match="--metric lst"):
        tables.render(planned(store, elr_runs()), store, published=True, metric="lst")


def test_numbers_of_webvisions_second_test_set_are_beside_its_own_column(store):
    web = MeasuredSetting.of(
        {"method": "ce", "dataset": "webvision", "labels": "noisy", "noise": None}, {}
    )
    assert {r.dataset for r in web.records()} == {"webvision-mini"}
    assert {r.dataset for r in web.records("ilsvrc12")} == {"ilsvrc12"}
    assert replace(web, dataset="clothing1m").records("ilsvrc12") == []
    spec = {**SPEC, "dataset": "webvision", "labels": "noisy", "noise": None, "params": {}}
    metrics = {"last": 0.6, "last_top5": 0.85, "ilsvrc12_last": 0.6, "ilsvrc12_last_top5": 0.84}
    runs = [
        (row, record(row, 0, metrics, {**spec, "method": row})) for row in ("ce", "co-teaching")
    ]
    text = tables.render(
        planned(store, runs, seeds=[0], title="mini-WebVision"), store, published=True
    )
    lines = {
        line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| c")
    }
    # Table 5 of epsilon-softmax, last epoch, under the column of ILSVRC12.
    columns = [cell.strip() for cell in text.splitlines()[2].split("|")]
    beside = lines["ce"].split("|")[columns.index("ILSVRC12") + 1]
    assert beside.strip().startswith("60.72 [")
    # ELR Table 4 copies them from the DivideMix paper and does not say which epoch they are of.
    for number in ("63.58 [", "85.20 top-5 [", "61.48 on ILSVRC12 [", "84.70 top-5 on ILSVRC12 ["):
        assert number in lines["co-teaching"]


def test_numbers_selected_on_clean_labels_are_beside_that_column(store):
    spec = {
        **SPEC,
        "method": "elr-plus",
        "dataset": "clothing1m",
        "labels": "noisy",
        "noise": None,
        "params": {},
    }
    runs = [("elr-plus", record("elr-plus", 0, {"last": 0.7, "selected_clean": 0.74}, spec))]
    text = tables.render(planned(store, runs, seeds=[0], title="Clothing1M"), store, published=True)
    columns = [cell.strip() for cell in text.splitlines()[2].split("|")]
    row = next(line for line in text.splitlines() if line.startswith("| elr-plus"))
    assert row.split("|")[columns.index("selected on clean val") + 1].strip().startswith("74.81 [")
