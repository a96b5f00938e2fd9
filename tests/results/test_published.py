"""The published numbers themselves, what may be compared with them, and tables that print them.

The tables print them beside the numbers of our records.
"""

import csv
import io
import re
import subprocess
import sys
import time
from dataclasses import replace
from operator import attrgetter
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

# Our methods that some source reports.
OURS = {
    "agce", "anl", "backward", "bootstrap", "cal", "cdr", "ce", "co-teaching", "co-teaching-plus",
    "cores2", "d2l", "disc", "dividemix", "elr", "elr-plus", "ema", "eps-softmax", "f-divergence",
    "forward", "gce", "gls", "incv", "jocor", "joint-optim", "m-dyr", "mentornet", "mixup",
    "nce-agce", "nce-rce", "peer", "pencil", "pes", "pls", "promix", "sat", "sl", "sop", "sop-plus",
    "ssr", "t-revision", "volminnet",
}  # fmt: skip
# Methods of the sources that we do not have. They keep the sources' names.
KEPT = {
    "active-bias", "augdesc", "c2d", "ce-eps-mae-semi", "ce-simclr-init", "cores-star",
    "decoupling", "dividemix-c2d", "dropout", "elr-plus-c2d", "ldr-kl", "longremix", "mentormix",
    "mentornet-dd", "metacleaner", "mlnt", "moit", "nested", "nested-co-teaching", "ngc", "odd",
    "plc", "proto-semi", "rlnlc", "rrl", "self-learning", "selfie", "sure", "ulc",
}  # fmt: skip
MODELS = {
    "resnet34", "preact_resnet18", "torchvision/resnet34", "torchvision/resnet50",
    "torchvision/vgg19_bn", "timm/inception_resnet_v2", "unknown", "cnn8", "densenet-25-12",
    "preact-resnet32", "resnet32", "resnet56", "vgg19", "wrn-28-10",
}  # fmt: skip
DATASETS = {
    "cifar10", "cifar100", "cifar10n", "cifar100n", "clothing1m", "webvision", "ilsvrc12",
    "animal10n", "cnwl", "web-aircraft", "web-bird", "web-car",
}  # fmt: skip
TEXT = [f for f in Published.__dataclass_fields__ if f not in ("mean", "std", "seeds")]


# --- The file ------------------------------------------------------------------------------------


def test_every_record_is_sound():
    records = published.load()
    columns = [column for column in TEXT if column != "note"]
    different = set(map(attrgetter(*columns), records))

    assert len(records) == len(different) == 1539
    for r in records:
        assert 0 <= r.mean <= 100
        assert r.std is None or 0 <= r.std < 15
        assert r.seeds is None or r.seeds >= 2
        assert r.table
        assert len(r.source) > 10
        assert r.selection in published.SELECTIONS
        assert r.metric in ("top1", "top5")
        assert r.noise_definition in ("", "symmetric", "symmetric-inclusive", "pair-flip")
        assert r.std_kind in ("", "population", "sample")
        # No number of ALR could be obtained.
        assert "alr" not in (r.method, r.name("method"))
        # A note is for readers of tables. It names no file of the machine it was written on.
        assert not re.search(r"(^|[\s('\"])~?/\w", r.note)
        for word in (".md", "selection="):
            assert word not in r.note


@pytest.mark.parametrize(
    ("table", "method", "noise", "selection", "printed"),
    [
        ("ELR Table 1", "gce", "sym-0.4", "", "87.13±0.22"),
        ("CIFAR-N Table 2", "ce", "worst", "best", "77.69±1.55"),
        ("ReScience logs, last epoch", "ce", "worst", "last", "68.26±1.08"),
        ("ELR Table 2", "elr-plus", "asym-0.4", "noisy-val", "92.70"),
        ("M-DYR README", "md-dyr-sh", "sym-0.9", "last", "68.70"),
        ("BadLabel README", "promix", "badlabel-0.4", "best", "48.36±1.72"),
        ("INCV README", "d2l", "sym-0.5", "", "67.39±13.62"),
        ("MentorNet README", "mentornet-pd", "sym-0.2", "", "91.00"),
    ],
)
def test_some_cells(table, method, noise, selection, printed):
    found = []
    for r in published.load():
        place = (r.table, r.method, r.noise, r.selection)
        if place == (table, method, noise, selection) and r.dataset in ("cifar10", "cifar10n"):
            found.append(r.text())

    assert found == [printed]


def test_every_name_is_one_of_ours_or_kept_on_purpose():
    records = published.load()
    known = {"method": OURS | KEPT, "model": MODELS, "dataset": DATASETS}
    columns = {"method": "method", "model": "architecture", "dataset": "dataset"}

    methods = set(method_files())
    assert methods >= OURS
    assert not methods & KEPT
    for what, names in known.items():
        assert {r.name(what) for r in records} == names
        in_file = set(map(attrgetter(columns[what]), records))
        assert set(published.NAMES[what]) <= in_file
    assert set(published.NAMES["model"]) >= published.PRETRAINED


def test_each_cell_of_m_dyr_is_of_the_method_that_its_authors_name():
    """ELR's Table 2 has one row; in each column it is the better of two methods of the README."""
    row, readme = {}, {}
    for r in published.load():
        place = r.dataset, r.noise
        if r.table == "ELR Table 2" and r.name("method") == "m-dyr":
            row[place] = r.method, r.mean
        elif r.table == "M-DYR README" and r.selection == "best" and r.noise != "clean":
            readme.setdefault(place, []).append((r.mean, r.method))

    # The README has no asymmetric noise, so that the method of this cell is not known.
    assert row.pop(("cifar10", "asym-0.4")) == ("m-dyr", 87.4)
    assert row.keys() == readme.keys()
    for place, numbers in readme.items():
        mean, method = max(numbers)
        assert row[place] == (method, mean), place

    of_sh = {place for place, (method, _) in row.items() if method == "md-dyr-sh"}
    hundred = {("cifar100", f"sym-{rate}") for rate in ("0.2", "0.5", "0.9")}
    assert of_sh == {("cifar10", "sym-0.9"), *hundred}


def test_it_loads_at_once():
    seconds = []
    # CPU time, and the fastest of some counts, because the machine may be busy.
    for _ in range(5):
        begun = time.process_time()
        published.load.__wrapped__()
        seconds.append(time.process_time() - begun)

    assert min(seconds) < 0.1


def test_it_is_beside_the_module():
    assert Path(published.__file__).with_name("published.csv").is_file()


# --- What may be compared ------------------------------------------------------------------------


def one(**wanted):
    """Return the only published number with these values in these columns."""
    columns = attrgetter(*wanted)
    found = [r for r in published.load() if columns(r) == tuple(wanted.values())]

    assert len(found) == 1, found
    return found[0]


# Table 1 of ELR has a line for each of two schedules; this is the one of our protocol.
STEPS = {"table": "ELR Table 1", "method": "elr", "variant": "step schedule"}
ELR = one(**STEPS, dataset="cifar10", noise="sym-0.4")
CIFAR = {
    "model": "resnet34",
    "epochs": 120,
    "lr": 0.02,
    "weight_decay": 1e-3,
    "val_fraction": 0.1,
    "subset": 0,
    "schedule": {"kind": "multistep", "milestones": [40.0, 80.0], "gamma": 0.01},
}
CIFARN = {**CIFAR, "epochs": 100, "lr": 0.1, "weight_decay": 5e-4, "val_fraction": 0.0}
SPEC = {
    "method": "elr",
    "params": {"beta": 0.7, "lam": 3.0},
    "dataset": "cifar10",
    "labels": "clean",
    "noise": {"kind": "symmetric-inclusive", "rate": 0.4},
    "protocol": CIFAR,
}
SETTING = MeasuredSetting.of(SPEC, {"num_train": 45000})


def test_what_agrees_in_all_may_be_compared():
    assert SETTING.differences(ELR) == ([], [])
    assert ELR in SETTING.records()
    assert comparable.nearest(SETTING.records(), SETTING) == [ELR]


@pytest.mark.parametrize(
    ("setting", "record", "known", "unknown"),
    [
        # The noise.
        ({"definition": "symmetric"}, ELR, ["noise: symmetric here, symmetric-inclusive there"],
         []),
        ({}, replace(ELR, noise_definition=""), [], ["noise: not known of the source"]),
        # The network.
        ({"protocol": {**CIFAR, "model": "cnn3"}}, ELR, ["network: cnn3 here, resnet34 there"],
         []),
        ({}, replace(ELR, architecture="unknown"), [], ["network: not known of the source"]),
        ({}, replace(ELR, architecture="resnet34-imagenet-stem"),
         ["network: resnet34 here, torchvision/resnet34 there"], []),
        # The length of the training, and its data.
        ({"protocol": {**CIFAR, "epochs": 2}}, ELR, ["epochs: 2 here, 120 there"], []),
        ({}, replace(ELR, table="another"), [],
         ["epochs: not known of the source", "training images: not known of the source"]),
        ({"num_train": 50000}, ELR, ["training images: 50,000 here, 45,000 there"], []),
        ({"num_train": None}, ELR, [], ["training images: not in the record here"]),
        # The optimiser and its schedule.
        ({"protocol": {**CIFAR, "lr": 0.1}}, ELR, ["learning rate: 0.1 here, 0.02 there"], []),
        ({"protocol": {**CIFAR, "weight_decay": 0.0}}, ELR, ["weight decay: 0 here, 0.001 there"],
         []),
        ({"protocol": {**CIFAR, "schedule": {"kind": "constant"}}}, ELR,
         ["schedule: constant here, multistep there"], []),
        ({}, replace(ELR, variant="cosine schedule"),
         ["epochs: 120 here, 150 there", "schedule: multistep here, cosine-restarts there"], []),
    ],
    ids=str,
)  # fmt: skip
def test_each_reason_against_a_difference(setting, record, known, unknown):
    assert replace(SETTING, **setting).differences(record) == (known, unknown)


EPS = {"table": "epsilon-softmax Table 2", "method": "ce-eps-mae", "noise": "sym-0.4"}
CLIPPED = {
    "model": "cnn8",
    "epochs": 120,
    "lr": 0.01,
    "weight_decay": 1e-4,
    "clip_norm": 5.0,
    "schedule": {"kind": "cosine-restarts", "period": 120.0, "floor": 0.0},
}
UNCLIPPED = {name: value for name, value in CLIPPED.items() if name != "clip_norm"}


@pytest.mark.parametrize(
    ("protocol", "known"),
    [
        (CLIPPED, []),
        # A key at its default is in no record.
        (UNCLIPPED, ["gradients: not clipped here, clipped at norm 5 there"]),
        ({**CLIPPED, "clip_norm": 1.5},
         ["gradients: clipped at norm 1.5 here, clipped at norm 5 there"]),
        # A cosine of several periods is another schedule.
        ({**CLIPPED, "schedule": {"kind": "cosine-restarts", "period": 60.0, "floor": 0.0}},
         ["schedule: cosine-restarts here, cosine there"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_clip_and_a_cosine_are_compared(protocol, known):
    spec = {
        "method": "eps-softmax",
        "dataset": "cifar10",
        "noise": {"kind": "symmetric", "rate": 0.4},
        "protocol": protocol,
    }
    setting = MeasuredSetting.of(spec, {"num_train": 50000})
    assert setting.differences(one(**EPS, dataset="cifar10")) == (known, [])


def test_clips_of_no_protocol_and_of_no_source_say_nothing():
    record = one(**EPS, dataset="cifar10")
    setting = MeasuredSetting.of({"method": "eps-softmax", "dataset": "cifar10"}, {})
    assert not any("gradients" in reason for reason in setting.differences(record).known)
    clipped = replace(SETTING, protocol={**CIFAR, "clip_norm": 5.0})
    assert clipped.differences(ELR) == ([], [])


def test_asymmetric_noise_is_not_one_thing():
    spec = {**SPEC, "noise": {"kind": "asymmetric", "rate": 0.4}}
    elr = one(**STEPS, dataset="cifar10", noise="asym-0.4")
    setting = MeasuredSetting.of(spec, {"num_train": 45000})

    assert elr in setting.records()
    assert setting.differences(elr) == (
        ["noise: asymmetric here, asymmetric with flips taken back there"],
        [],
    )

    hundred = one(**STEPS, dataset="cifar100", noise="asym-0.4")
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
    # CIFAR-N has no number of bootstrapping, so that one is compared with Table 1 of ELR.
    if method == "bootstrap":
        record = one(table="ELR Table 1", dataset="cifar10", noise="sym-0.4", method=method)
        spec = {"dataset": "cifar10", "noise": SPEC["noise"]}
    else:
        record = one(table="CIFAR-N Table 2", dataset="cifar10n", noise="worst", method=method)
        spec = {"dataset": "cifar10n", "labels": "worst", "noise": None}
    spec |= {"method": method, "params": params, "protocol": CIFARN}
    setting = MeasuredSetting.of(spec, {"num_train": 50000})
    found_known, found_unknown = setting.differences(record)

    assert [reason for reason in found_known if "form" in reason] == known
    assert [reason for reason in found_unknown if "form" in reason] == unknown
    assert (record in setting.records()) == shown


@pytest.mark.parametrize(
    ("method", "params", "noise", "sources"),
    [
        ("m-dyr", {"kind": "m-dyr-h"}, "symmetric-inclusive 0.9", {"m-dyr-h"}),
        ("m-dyr", {"kind": "md-dyr-sh"}, "symmetric-inclusive 0.9", {"md-dyr-sh"}),
        ("m-dyr", {"kind": "md-dyr-sh"}, "asymmetric 0.4", {"m-dyr"}),
        ("mentornet", {}, "symmetric 0.2", {"mentornet", "mentornet-pd"}),
        ("incv", {}, "asymmetric 0.4", {"iterative-cv"}),
        ("peer", {}, "instance-dependent 0.2", {"peer-loss"}),
        ("anl", {"gamma": 0.0}, "animal10n", {"anl-ce"}),
        ("anl", {"gamma": 0.5}, "animal10n", set()),
        ("f-divergence", {"divergence": "kl"}, "cifar10n", {"f-div"}),
        ("ssr", {"lam": 0.0}, "symmetric 0.2", {"ssr"}),
        ("ssr", {"lam": 1.0}, "symmetric 0.2", {"ssr-plus"}),
    ],
)
def test_further_methods_find_their_own_rows(method, params, noise, sources):
    spec = {"method": method, "params": params, "dataset": "cifar10", "protocol": CIFAR}
    kind, _, rate = noise.partition(" ")
    if rate:
        spec["noise"] = {"kind": kind, "rate": float(rate)}
    else:
        spec |= {"dataset": noise, "labels": {"cifar10n": "worst"}.get(noise, "noisy")}
    setting = MeasuredSetting.of(spec, {})
    numbers = setting.records()

    assert {number.method for number in numbers} == sources
    for number in numbers:
        known, not_known = setting.differences(number)
        form = [reason for reason in known + not_known if reason.startswith("form")]
        unknown = number.method in ("m-dyr", "mentornet", "f-div")
        assert form == ["form of the method: not known of the source"] * unknown


def test_pair_flip_is_not_the_asymmetric_noise_of_others():
    record = one(table="INCV README", method="iterative-cv", noise="asym-0.4")
    spec = {**SPEC, "method": "incv", "noise": {"kind": "asymmetric", "rate": 0.4}}
    known, _ = MeasuredSetting.of(spec, {}).differences(record)

    assert "noise: asymmetric here, pair-flip there" in known


def test_the_warm_up_that_estimates_T_is_compared():
    def differences(method, share):
        params = {"T": False, "warmup_share": share}
        spec = {**WORST, "method": method, "params": params}
        setting = MeasuredSetting.of(spec, {"num_train": 50000})
        record = one(table="CIFAR-N Table 2", dataset="cifar10n", noise="worst", method=method)
        return setting.differences(record)

    assert differences("forward", 2.0) == ([], [])

    known, unknown = differences("forward", 1.0)
    assert known == ["trainings before, to estimate T: 1 here, 2 there"]
    assert unknown == []

    known, unknown = differences("backward", 2.0)
    assert known == []
    assert unknown == ["trainings before, to estimate T: not known of the source"]


def test_smoothing_and_the_parts_of_elr_plus_find_their_own_rows():
    def beside(spec, **params):
        """Return the published numbers that may be shown beside this method."""
        spec = {**spec, "params": {**spec["params"], **params}}
        return MeasuredSetting.of(spec, {}).records()

    gls = {"method": "gls", "params": {"rate": -1.0}, "dataset": "cifar10n", "labels": "worst"}

    assert [number.method for number in beside(gls)] == ["negative-ls"]
    assert [number.method for number in beside(gls, rate=0.1)] == ["els"]

    parts = {"networks": 1, "mixup_a": 1.0, "ema": True, "lam": 3.0}
    plus = {**SPEC, "method": "elr-plus", "params": parts}

    # Table 5 has the parts of ELR+, for one network.
    assert [number.text() for number in beside(plus)] == ["93.04±0.12"]
    assert [number.text() for number in beside(plus, networks=2)] == ["93.68±0.51"]
    assert beside(plus, lam=0.0) == []


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

    known, unknown = setting.differences(record)

    assert known == ["its two networks each drew their own noise and split"]
    assert unknown == []


def test_clean_labels_of_a_human_dataset_are_the_official_ones():
    spec = {"method": "ce", "dataset": "cifar10n", "labels": "clean", "noise": None}
    numbers = MeasuredSetting.of(spec, {}).records()

    assert {number.dataset for number in numbers} == {"cifar10"}
    assert {number.noise for number in numbers} == {"clean"}

    web = {"method": "ce", "dataset": "clothing1m", "labels": "noisy", "noise": None}
    numbers = MeasuredSetting.of(web, {}).records()

    assert {number.noise for number in numbers} == {"real"}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"noise": {}},
        {"noise": {"kind": "matrix", "sha256": "x"}},
        {"noise": {"kind": "asymmetric-other"}},
        {"noise": {"kind": "symmetric", "rate": "half"}},
        {"params": None, "method": "gce"},
        {"params": [1]},
        {"method": "gls", "params": {"rate": "x"}},
        {"protocol": None},
        {"protocol": {"schedule": "constant"}},
        {"dataset": None, "labels": None},
        {"noise": "symmetric"},
    ],
    ids=str,
)
def test_a_record_of_an_unknown_kind_is_compared_with_nothing(spec):
    spec = {"method": "elr", "dataset": "cifar10", **spec}
    setting = MeasuredSetting.of(spec, {})

    assert any(setting.differences(ELR))
    if spec.get("noise") or not spec["dataset"]:
        assert setting.records() == []


def sample(record):
    """Return the runs behind a published number as a sample for a test."""
    return Sample(record.mean, record.sample_std, record.seeds)


def test_the_welch_test_by_hand():
    found = statistics.welch(Sample(89.10, 0.05**0.5, 5), sample(ELR))
    reference = ttest_ind_from_stats(89.1, 0.05**0.5, 5, 89.15, 0.17, 5, equal_var=False)

    # 0.05 / 5 + 0.0289 / 5 = 0.01578, and its square over (0.01^2 + 0.00578^2) / 4 is 7.466
    # degrees of freedom.
    assert found.difference == pytest.approx(-0.05)
    assert found.se == pytest.approx(0.01578**0.5)
    assert found.df == pytest.approx(7.4660, abs=1e-4)
    assert found.p == pytest.approx(reference.pvalue)


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
        (None, 1, {}),
        (0.2, 1, {}),
        (0.2, 5, {"std": None}),
        (0.2, 5, {"seeds": None}),
        (0.2, 5, {"seeds": 1}),
        (0.0, 5, {"std": 0.0}),
    ],
)
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


# --- The command ---------------------------------------------------------------------------------


def call(*arguments):
    """Run `nlbench published` with these arguments."""
    return CliRunner().invoke(app, ["published", *arguments], catch_exceptions=False)


def test_the_command_prints_numbers_with_their_sources():
    chosen = ("--dataset", "cifar10n", "--method", "ce", "--noise", "worst", "--model", "resnet34")
    text = call(*chosen).stdout

    assert text.startswith("**Published numbers: 5, test accuracy in %")
    assert "| best (oracle) | 77.69±1.55 |    5 |    [1] |" in text
    # The sources are wrapped at words.
    words = " ".join(text.split())
    source = "CIFAR-N Table 2: Wei, Zhu, Cheng, Liu, Niu, Liu, ICLR 2022 (arXiv 2110.12088)"
    assert f"- [1] {source}" in words
    assert "not stated whether its std is of the sample or the population" in words

    rows = list(csv.DictReader(io.StringIO(call("--format", "csv").stdout)))
    assert len(rows) == 1539

    # Columns of text are printed as they are in the file, and numbers are not.
    path = Path(published.__file__).with_name("published.csv")
    with path.open(newline="", encoding="utf-8") as file:
        for printed, there in zip(rows, csv.DictReader(file), strict=True):
            for column in TEXT:
                assert printed[column] == there[column]


def test_the_command_tells_forms_of_a_method_by_the_sources_names():
    text = call("--dataset", "cifar10", "--method", "m-dyr", "--noise", "sym-0.9").stdout

    assert [line.split(" |")[0] for line in text.splitlines() if "| best (oracle)" in line] == [
        "| m-dyr (md-dyr-sh)",
        "| m-dyr (m-dyr-h)  ",
        "| m-dyr (md-dyr-sh)",
    ]


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--method", "pes"], 37),
        (["--method", "pes-semi"], 37),
        (["--model", "preact_resnet18"], 230),
        (["--model", "preactresnet18"], 230),
        (["--noise", "asym"], 181),
        (["--noise", "symmetric"], 56),
        (["--dataset", "webvision"], 43),
    ],
)
def test_names_of_both_sides_are_understood(arguments, count):
    text = call(*arguments, "--format", "csv").stdout

    # The first line has the names of the columns.
    assert len(text.splitlines()) == count + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dataset", "cifar10m"],
            "--dataset cifar10m: no published number has it. There are: cifar10, ",
        ),
        (["--method", "elrplus"], "Did you mean 'elr-plus'?"),
        (["--method", "alr"], "no published number has it"),
        (["--noise", "wurst"], "Did you mean 'worst'?"),
        (["--model", "resnet43"], "Did you mean 'resnet34'?"),
        (
            ["--dataset", "clothing1m", "--noise", "worst"],
            "number has all of --dataset clothing1m, --noise worst",
        ),
        (["--format", "latex"], "csv"),
    ],
)
def test_a_name_that_no_number_has_is_refused(arguments, message):
    result = call(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


# The time is that of the process alone, because the machine may be busy with others.
LISTS_PUBLISHED = """
import sys, time
from nlbench import cli
sys.argv = ['nlbench', 'published']
try:
    cli.main()
except SystemExit as end:
    assert not end.code
assert not {'torch', 'pandas', 'scipy'} & set(sys.modules)
print(time.process_time(), file=sys.stderr)
"""


def test_the_command_does_without_torch_and_at_once():
    result = subprocess.run(
        [sys.executable, "-c", LISTS_PUBLISHED],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    # It took 0.24 s when this was written.
    assert float(result.stderr) < 0.6


# --- Tables --------------------------------------------------------------------------------------


def record(
    row, seed, metrics, spec, *, num_train=45000, status="done", noise=None, code=None, device="cpu"
):
    """Return the record of a run. A run that is not done has no facts about its noise."""
    spec = {**spec, "method": spec.get("method", row), "seed": seed}
    path = method_files()[spec["method"]].path
    drawn = spec["noise"]
    kind = drawn.get("kind", "") if isinstance(drawn, dict) else ""
    facts = {}
    if status == "done":
        facts = {
            "noise_rate_train": 0.36,
            "noise_rate_full": 0.36,
            "redrawn": True,
            "num_train": num_train,
            "num_val": 50000 - num_train,
            "num_test": 10000,
            **(noise or {}),
        }

    return RunRecord(
        key=key_of(spec),
        status=status,
        spec=spec,
        metrics=metrics,
        noise=facts,
        timing={},
        environment={"device": device, "precision": "bfloat16"},
        method={"told": [], "networks": 1, "forward_passes": 1.0},
        code=code or code_hash(path, "resnet34", spec["dataset"], kind),
    )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def planned(
    store, records, rows=(), seeds=(0, 1, 2, 3, 4), title="CIFAR-10 symmetric-inclusive 0.4"
):
    """Write the records and return a plan of one condition with a cell for each row and seed.

    `records` are pairs (row, record); `rows` are further rows, which have no record. A cell
    without a record has a key of zeros.
    """
    methods = {}
    keys = {}
    for row, run in records:
        store.write(run, [])
        methods[row] = run.spec["method"]
        keys[row, run.spec["seed"]] = run.key
    for row in rows:
        methods.setdefault(row, row)

    listed = []
    cells = []
    for row, method in methods.items():
        listed.append({"row": row, "method": method, "told": [], "networks": 1})
        for seed in seeds:
            key = keys.get((row, seed), "0" * 16)
            cells.append({"row": row, "condition": 0, "seed": seed, "key": key})

    return {
        "suite": "s",
        "track": "identical",
        "protocol": "cifar",
        "conditions": [title],
        "seeds": list(seeds),
        "rows": listed,
        "cells": cells,
    }


def table(text):
    """Return the headings, and the cells of each line by its first cell."""
    lines = []
    for line in text.splitlines():
        if line.startswith("| "):
            lines.append(list(map(str.strip, line.strip("|").split("|"))))

    return lines[0], {line[0]: line[1:] for line in lines[2:]}


def right_of(text, row, heading):
    """Return the cell that is right of the cell under this heading."""
    headings, rows = table(text)
    # A row has no cell for the first heading, so this place is one further to the right.
    return rows[row][headings.index(heading)]


# In percent, their mean is 89.10, the sum of squared deviations 0.20, and the std 0.2236.
SELECTED = [0.8900, 0.8920, 0.8910, 0.8940, 0.8880]


def elr_runs(**changes):
    """Return pairs (row, record) of ELR, a run for each value of `SELECTED`."""
    spec = {**SPEC, **changes.pop("spec", {})}
    runs = []
    for seed, value in enumerate(SELECTED):
        metrics = {"last": value - 0.01, "best": value + 0.01, "selected": value}
        runs.append(("elr", record("elr", seed, metrics, spec, **changes)))
    return runs


def test_elr_beside_its_paper(store):
    text = tables.render(planned(store, elr_runs()), store, published=True)
    heads, rows = table(text)
    unstated = "published, by another or no stated rule"

    compared = ["published", "minus published"]
    assert heads == [
        "method",
        *("last epoch", *compared),
        *("best (oracle)", *compared),
        *("selected", *compared),
        unstated,
        "nets",
    ]
    assert rows["elr"] == [
        *("88.10±0.22", "87.78 [1]", "a,b,c,d"),
        *("90.10±0.22", "91.30 [1]", "a,b,c,d"),
        *("89.10±0.22", "89.15±0.17 [2]", "-0.05 (p 0.702)"),
        "89.15 [3]; 91.43 [3]",
        "1",
    ]
    assert "- [1] BadLabel README: Zhang et al., TPAMI 2024" in text
    assert (
        "- [2] ELR Table 1: Liu, Niles-Weed, Razavian, Fernandez-Granda, "
        "NeurIPS 2020 (arXiv 2007.00151)"
    ) in text
    assert "5 runs; not stated whether its std is of the sample or the population" in text
    assert "- [3] ELR official README" in text
    assert "p-value of Welch's t test (two-sided, unadjusted)" in text
    # These are the lines of the cosine schedule.
    assert "Published numbers that are not shown, because their setting is less similar: 2;" in text
    assert "A letter gives a reason why there is no difference: (a) noise: not known of" in text
    assert "CIFAR-N" not in text


def test_the_same_as_csv_and_latex(store):
    plan = planned(store, elr_runs())
    text = tables.render(plan, store, fmt="csv", published=True)
    # Every metric has one line, for the table has one row.
    by_metric = {line["metric"]: line for line in csv.DictReader(io.StringIO(text))}
    selected = by_metric["selected"]

    assert selected["published"] == "0.8915"
    assert selected["published_std"] == "0.0017"
    assert selected["published_n"] == "5"
    assert selected["published_from"].startswith("ELR Table 1: Liu")
    assert float(selected["minus_published"]) == pytest.approx(-0.0005)
    assert float(selected["se"]) == pytest.approx(0.01578**0.5 / 100)
    assert float(selected["df"]) == pytest.approx(7.4660, abs=1e-4)
    assert float(selected["p_welch"]) == pytest.approx(0.702, abs=5e-4)
    assert selected["why_not_or_marks"] == ""

    last = by_metric["last"]
    assert last["published"] == "0.8778"
    assert last["minus_published"] == ""
    assert last["why_not_or_marks"].startswith("noise: not known of the source; ")

    unstated = by_metric["unstated"]
    assert unstated["mean"] == ""
    assert unstated["published"] == "0.8915"
    assert unstated["minus_published"] == ""
    assert unstated["also_published"] == "91.43 ELR official README"

    plain = tables.render(plan, store, fmt="csv").splitlines()[0]
    assert "published" not in plain

    latex = tables.render(plan, store, fmt="latex", published=True)
    body = latex.split(r"\begin{tabular}")[1].split(r"\end{tabular}")[0]

    assert (
        r"& 90.10$\pm$0.22 & 91.30 [1] & a,b,c,d & 89.10$\pm$0.22 & 89.15$\pm$0.17 [2] & "
        r"$-$0.05 (p 0.702) &"
    ) in body
    assert "% [2] ELR Table 1" in latex


def test_one_metric_alone(store):
    plan = planned(store, elr_runs())

    heads, _ = table(tables.render(plan, store, published=True, metric="best"))
    assert heads[:3] == ["method", "best (oracle)", "published"]

    heads, _ = table(tables.render(plan, store, published=True, details=True))
    measured = [head for head in heads[1:] if "published" not in head]
    assert measured[:3] == ["last epoch", "best (oracle)", "selected"]


def test_letters_say_why_there_is_no_difference(store):
    spec = {
        "protocol": {**CIFAR, "model": "cnn3", "epochs": 20},
        "noise": {"kind": "symmetric", "rate": 0.4},
    }
    plan = planned(store, elr_runs(spec=spec, num_train=20000))
    text = tables.render(plan, store, published=True)

    # The letters before are those of the number of the last epoch.
    assert table(text)[1]["elr"][8] == "e,f,g,h"
    assert (
        "(e) noise: symmetric here, symmetric-inclusive there; "
        "(f) network: cnn3 here, resnet34 there; (g) epochs: 20 here, 120 there; "
        "(h) training images: 20,000 here, 45,000 there."
    ) in text
    assert "Welch" not in text


def test_copies_stale_and_failed_runs_are_marked(store):
    runs = elr_runs(noise={"variant": "JPEG"}, code="other")
    runs[2] = ("elr", record("elr", 2, {}, SPEC, status="diverged"))
    text = tables.render(planned(store, runs), store, published=True)

    # The run that is left out had the mean, so the sum of squared deviations is still 0.20.
    assert table(text)[1]["elr"][6] == "89.10±0.26 (4/5, !1)*"
    assert table(text)[1]["elr"][8].startswith("-0.05*†! (p 0.7")
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
    """Return pairs (row, record) of cross-entropy on the worst labels of CIFAR-10N."""
    values = [(0.68, 0.835), (0.685, 0.84), (0.69, 0.845)]
    runs = []
    for seed in seeds:
        last, best = values[seed]
        metrics = {"last": last, "best": best}
        runs.append(("ce", record("ce", seed, metrics, {**WORST, **spec}, num_train=50000)))
    return runs


def test_ce_beside_several_sources(store):
    plan = planned(store, ce_runs(), seeds=(0, 1, 2), title="CIFAR-10N worst")
    text = tables.render(plan, store, published=True)
    heads, rows = table(text)

    assert heads == [
        "method",
        "last epoch",
        "published",
        "minus published",
        "best (oracle)",
        "published",
        "minus published",
        "nets",
    ]
    assert rows["ce"] == [
        "68.50±0.50",
        "68.26±1.08 [1]; 68.39 [2]",
        "+0.24 (p 0.751) [1]; +0.11 (not testable) [2]",
        "84.00±0.50",
        "77.69±1.55 [3]; 83.91±0.08 [4]; 84.03 [2]",
        "+6.31 (p <0.001) [3]; +0.09 (p 0.787) [4]; -0.03 (not testable) [2]",
        "1",
    ]
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
    line = next(line for line in text.splitlines() if "] ELR Table 1: " in line)

    assert "selection rule from the official code (elr); noise redrawn for each run; " in line
    assert (
        "copied from the GCE paper (gce); its selection rule is not verified (gce); "
        "printed as GSE (gce)"
    ) in line
    assert line.endswith("re-run by the ELR authors (sl).")


def test_one_run_is_not_testable(store):
    plan = planned(store, ce_runs(seeds=(1,)), seeds=(1,))
    text = tables.render(plan, store, published=True)

    assert table(text)[1]["ce"][2] == "+0.24 (not testable) [1]; +0.11 (not testable) [2]"


def test_a_row_that_did_not_run_still_has_its_published_number(store):
    others = ("elr", "alr", "gce")
    plan = planned(store, ce_runs(), rows=others, seeds=(0, 1, 2), title="CIFAR-10N worst")
    _, rows = table(tables.render(plan, store, published=True))

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
        {"noise": {"kind": "instance-dependent", "rate": 0.4}},
        {"noise": {"kind": "file", "sha256": "x"}},
        {"dataset": "made-up", "labels": "other", "noise": None},
        {"params": None},
        {"protocol": {"model": "resnet34"}},
        {"noise": {"kind": "symmetric-inclusive"}},
        {"noise": "odd"},
    ],
    ids=str,
)
def test_an_unexpected_record_does_no_harm(store, spec, form):
    plan = planned(store, elr_runs(spec=spec))
    text = tables.render(plan, store, published=True, fmt=form, metric=None)

    assert "elr" in text


def test_letters_go_on_after_z():
    keys = notes.Keys("ab")

    # After the last letter a number is added to it. A text that is there has its letter already.
    assert list(map(keys.of, ("x", "y", "z", "x", "w"))) == ["a", "b", "b2", "a", "b3"]


def test_an_unknown_metric_is_refused_as_ever(store):
    with pytest.raises(SuiteError, match="--metric lst"):
        tables.render(planned(store, elr_runs()), store, published=True, metric="lst")


def test_numbers_of_webvisions_second_test_set_are_beside_its_own_column(store):
    of_web = {"dataset": "webvision", "labels": "noisy", "noise": None}
    web = MeasuredSetting.of({"method": "ce", **of_web}, {})

    assert {r.dataset for r in web.records()} == {"webvision-mini"}
    assert {r.dataset for r in web.records("ilsvrc12")} == {"ilsvrc12"}
    assert replace(web, dataset="clothing1m").records("ilsvrc12") == []

    metrics = {"last": 0.6, "last_top5": 0.85, "ilsvrc12_last": 0.6, "ilsvrc12_last_top5": 0.84}
    runs = []
    for row in ("ce", "co-teaching"):
        spec = {**SPEC, **of_web, "params": {}, "method": row}
        runs.append((row, record(row, 0, metrics, spec)))
    plan = planned(store, runs, seeds=[0], title="mini-WebVision")
    text = tables.render(plan, store, published=True)
    _, rows = table(text)

    # Table 5 of epsilon-softmax reports the last epoch on ILSVRC12.
    assert right_of(text, "ce", "ILSVRC12").startswith("60.72 [")
    # ELR Table 4 copies them from the DivideMix paper and does not say which epoch they are of.
    line = " | ".join(rows["co-teaching"])
    for number in ("63.58 [", "85.20 top-5 [", "61.48 on ILSVRC12 [", "84.70 top-5 on ILSVRC12 ["):
        assert number in line


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
    plan = planned(store, runs, seeds=[0], title="Clothing1M")
    text = tables.render(plan, store, published=True)

    assert right_of(text, "elr-plus", "selected on clean val").startswith("74.81 [")
