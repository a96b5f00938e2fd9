"""Tables of hand-written records equal numbers computed by hand."""

import csv
import io
import math
import statistics

import pytest

from nlbench.code_hash import code_hash
from nlbench.errors import SuiteError
from nlbench.plan.spec import key_of
from nlbench.registry import method_files
from nlbench.results import statistics as statistics_
from nlbench.results import table as tables
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

VALUES = {  # row -> last by seed
    "ce": {0: 0.70, 1: 0.72, 2: 0.74},
    "elr": {0: 0.90, 1: 0.93, 2: 0.93},
    "gce": {0: 0.80, 1: 0.85},
}


def record(row, seed, last=None, status="done", **changes):
    spec = {"method": row, "seed": seed, "params": {}, "dataset": "digits"}
    spec["protocol"] = {"model": "digits_cnn"}
    environment = {"device": "cpu", "precision": "float32", **changes.pop("environment", {})}
    noise = {
        "noise_rate_train": 0.4,
        "noise_rate_full": 0.402,
        "redrawn": True,
        "num_train": 90,
        "num_val": 0,
        "num_test": 10,
    }
    return RunRecord(
        key=key_of(spec),
        status=status,
        spec=spec,
        metrics={} if last is None else {"last": last, "best": last + 0.01, "last10": last},
        noise={**noise, **changes.pop("noise", {})},
        timing={},
        environment=environment,
        method={"told": [], "networks": 1, "forward_passes": 1.0},
        code=changes.pop("code", None)
        or code_hash(method_files()[row].path, "digits_cnn", spec["dataset"]),
        **changes,
    )


def plan(store, records, conditions=("Digits symmetric 0.4",), seeds=(0, 1, 2)):
    """Writes `records`, {(row, condition, seed): record}, and returns a plan with a cell for each row and seed."""
    rows = list(dict.fromkeys(row for row, _, _ in records))
    cells = []
    for row in rows:
        for c in range(len(conditions)):
            for seed in seeds:
                r = records.get((row, c, seed))
                if r is not None:
                    store.write(r, [])
                cells.append(
                    {"row": row, "condition": c, "seed": seed, "key": r.key if r else "0" * 16}
                )
    listed = [{"row": row, "method": row, "told": [], "networks": 1} for row in rows]
    return {
        "suite": "s", "track": "identical", "protocol": "digits", "rows": listed, "conditions": list(conditions),
        "seeds": list(seeds), "cells": cells,
    }  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def three(store):
    return plan(
        store, {(row, 0, s): record(row, s, v) for row, by in VALUES.items() for s, v in by.items()}
    )


def lines(text):
    return {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}


def cells(line):
    return [part.strip() for part in line.strip("|").split("|")]


def test_mean_and_sample_std_over_seeds(store, three):
    table = lines(tables.render(three, store))
    assert cells(table["ce"])[1] == "72.00±2.00"
    assert cells(table["elr"])[1] == "92.00±1.73"  # std of .90 .93 .93 with n - 1: .0173
    assert cells(table["gce"])[1] == "82.50±3.54 (2/3)"


def test_paired_differences_and_their_p_values(store, three):
    rows = {
        r["row"]: r
        for r in csv.DictReader(io.StringIO(tables.render(three, store, fmt="csv")))
        if r["metric"] == "last"
    }
    elr = rows["elr"]
    deltas = [0.20, 0.21, 0.19]
    assert float(elr["difference"]) == pytest.approx(statistics.fmean(deltas))
    assert float(elr["difference_std"]) == pytest.approx(0.01)
    # t = 0.2 / (0.01 / sqrt 3) = 34.64 with 2 degrees of freedom; there P(|T| > t) = 1 - t / sqrt(2 + t^2).
    t = 0.2 / (0.01 / math.sqrt(3))
    assert float(elr["p_unadjusted"]) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)
    gce = rows["gce"]  # two seeds in common: +0.10, +0.13
    assert float(gce["difference"]) == pytest.approx(0.115)
    assert (gce["n"], gce["planned"]) == ("2", "3")
    assert rows["ce"]["p_unadjusted"] == ""


def test_holm_by_hand():
    assert statistics_.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics_.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics_.holm([]) == []


def test_another_reference_and_an_unknown_one(store, three):
    table = lines(tables.render(three, store, against="gce"))
    assert cells(table["elr"])[4].startswith("+9.00±1.41")  # .90 - .80 and .93 - .85: .10 and .08
    with pytest.raises(SuiteError, match=r"--against el: no such row.*Did you mean 'elr'"):
        tables.render(three, store, against="el")
    with pytest.raises(SuiteError, match=r"--metric lst: unknown.*Did you mean 'last'"):
        tables.render(three, store, metric="lst")


def test_missing_and_failed_runs_are_shown_and_never_averaged(store):
    records = {
        ("ce", 0, 0): record("ce", 0, 0.5),
        ("ce", 0, 1): record("ce", 1, status="diverged", error={"message": "nan"}),
        ("sl", 0, 0): record("sl", 0, status="failed", error={"message": "x"}),
    }
    p = plan(store, records)
    p["rows"].append({"row": "mae", "method": "mae", "told": ["T"], "networks": 2})
    text = tables.render(p, store)
    table = lines(text)
    assert cells(table["ce"])[1] == "50.00 (1/3, !1)"
    assert cells(table["sl"])[1] == "!1"
    assert cells(table["mae [told T]"])[1] == "-"
    assert "! number of runs that failed or diverged" in text


def test_several_conditions_are_columns_and_details_on_request(store):
    values = {("ce", 0): 0.6, ("ce", 1): 0.7, ("elr", 0): 0.8, ("elr", 1): 0.9}
    records = {(row, c, 0): record(row, 10 + c, v) for (row, c), v in values.items()}
    p = plan(store, records, ("A", "B"), seeds=(0,))
    text = tables.render(p, store)
    head, differences = text.split("\n**s: last epoch, minus ce")
    assert cells(lines(head)["elr"]) == ["elr", "80.00", "90.00", "1"]
    assert cells(lines(differences)["elr"]) == ["elr", "+20.00", "+20.00"]
    assert "ce" not in lines(differences)
    assert "over 1 seed;" in text
    assert cells(lines(tables.render(p, store, metric="best"))["ce"]) == [
        "ce",
        "61.00",
        "71.00",
        "1",
    ]
    assert tables.render(p, store, details=True).count("\n| method") == 2


def test_precisions_and_devices_are_not_mixed_unmarked(store):
    records = {
        ("ce", 0, 0): record("ce", 0, 0.5),
        ("ce", 0, 1): record("ce", 1, 0.5, environment={"device": "cuda"}),
    }
    text = tables.render(plan(store, records, seeds=(0, 1)), store)
    assert cells(lines(text)["ce"])[1] == "50.00±0.00‡"
    assert "‡ contains or compares runs of different precision or device class" in text


def test_a_difference_across_device_classes_is_marked(store):
    records = {("ce", 0, s): record("ce", s, 0.5) for s in (0, 1)}
    records |= {
        ("elr", 0, s): record("elr", s, 0.6 + s / 10, environment={"device": "cuda"})
        for s in (0, 1)
    }
    text = tables.render(plan(store, records, seeds=(0, 1)), store)
    assert cells(lines(text)["elr"])[4].endswith("‡")
    assert cells(lines(text)["elr"])[1] == "65.00±7.07"
    assert "‡ contains or compares" in text


def test_one_metric_alone_with_one_condition(store, three):
    text = tables.render(three, store, metric="best")
    assert "test accuracy at the epoch that is best on the test set, an oracle in %" in text
    assert cells(lines(text)["ce"]) == ["ce", "73.00±2.00", "1"]


def test_a_record_of_other_code_is_marked(store, three):
    assert "made by another version of the code" not in tables.render(three, store)
    records = {("ce", 0, s): record("ce", s, 0.5, code="other" if s else "") for s in (0, 1)}
    text = tables.render(plan(store, records, seeds=(0, 1)), store)
    assert cells(lines(text)["ce"])[1] == "50.00±0.00*"
    assert "* made by another version of the code" in text


def test_lossy_pixels_and_measured_noise_are_in_the_notes(store):
    records = {("ce", 0, 0): record("ce", 0, 0.5, noise={"variant": "JPEG"})}
    text = tables.render(plan(store, records, seeds=(0,)), store)
    assert (
        "measured noise rate 40.00% of the training labels (40.20% of all labels), drawn anew for each seed"
        in text
    )
    assert "The images are a JPEG copy" in text


def test_the_notes_say_what_was_measured(store):
    other = {"num_train": 80, "num_val": 10, "noise_rate_train": 0.45, "redrawn": False}
    records = {
        ("ce", 0, 0): record("ce", 0, 0.5, noise={"redrawn": False}),
        ("ce", 0, 1): record("ce", 1, 0.5, noise=other),
    }
    text = tables.render(plan(store, records, ("A",), seeds=(0, 1)), store)
    assert (
        "- A: measured noise rate 40.00% to 45.00% of the training labels (40.20% of all labels), the same for "
        "all seeds; 80 training, 10 validation, 10 test examples; 90 training, 10 test examples.\n"
    ) in text


def test_an_unknown_noise_rate_and_a_published_estimate_are_in_the_notes(store):
    noise = {"noise_rate_train": None, "noise_rate_full": None, "estimated_rate": 0.38}
    run = record("ce", 0, 0.5, noise=noise)
    of_suite = plan(store, {("ce", 0, 0): run}, ("A",), seeds=(0,))
    assert "published estimate" not in tables.render(of_suite, store)
    of_suite["rows"][0]["told"] = ["noise_rate"]
    text = tables.render(of_suite, store)
    assert (
        "- A: noise rate unknown (this dataset has no true labels); 90 training, 10 test examples."
        in text
    )
    assert "- told noise_rate: the methods are given a published estimate, 38%;" in text


def test_latex_has_one_line_for_each_row(store, three):
    text = tables.render(three, store, fmt="latex")
    assert r"\begin{tabular}{lrrrrrr}" in text
    assert r"elr & 92.00$\pm$1.73 &" in text
    assert "±" not in text.split(r"\begin{tabular}")[1].split(r"\end{tabular}")[0]


def test_a_method_that_replaced_the_protocols_optimiser_is_named(store):
    own = {("gce", 0, 0): record("gce", 0, 0.8), ("ce", 0, 0): record("ce", 0, 0.7)}
    own["gce", 0, 0].method["own_optimisers"] = ["network0"]
    text = tables.render(plan(store, own, seeds=(0,)), store)
    assert "- Methods that replace the protocol's optimiser: gce.\n" in text


METRICS = {
    "last": 0.10, "last10": 0.11, "best": 0.12, "selected": 0.13, "last_top5": 0.14, "final_wrong_memorised": 0.15,
    "final_clean_right": 0.16, "target_accuracy": 0.17, "selected_clean": 0.18, "ilsvrc12_last": 0.19,
    "ilsvrc12_last_top5": 0.20, "single_mean": 0.21,
}  # fmt: skip


@pytest.mark.parametrize("crop", [0, 224])
def test_each_metric_is_in_its_column(store, crop):
    run = record("ce", 0, 0.1)
    run.metrics.update(METRICS)
    run.spec["protocol"]["crop"] = crop
    run = RunRecord.model_validate({**run.as_json(), "key": key_of(run.spec)})
    text = tables.render(plan(store, {("ce", 0, 0): run}, seeds=(0,)), store, against="ce")
    heads = ["method", "last epoch", "top-5", "last 10 epochs", "best (oracle)", "selected", "selected on clean val",
             "ILSVRC12", "ILSVRC12 top-5", "single network", "clean right", "memorised", "last, minus ce", "nets",
             "passes"]  # fmt: skip
    values = ["ce", "10.00", "14.00", "11.00", "12.00", "13.00", "18.00", "19.00", "20.00", "21.00", "16.00", "15.00",
              "", "1", "1"]  # fmt: skip
    if not crop:
        del heads[2], values[2]
    assert cells(lines(text)["method"]) == heads
    assert cells(lines(text)["ce"]) == values


def test_the_lines_of_the_csv_file_are_by_metric_in_the_order_of_the_list(store):
    run = record("ce", 0, 0.1)
    run.metrics.update(METRICS)
    text = tables.render(plan(store, {("ce", 0, 0): run}, seeds=(0,)), store, fmt="csv")
    found = [(line["metric"], float(line["mean"])) for line in csv.DictReader(io.StringIO(text))]
    names = ["last", "last10", "best", "selected", "top5", "memorised", "clean-right", "targets", "selected-clean",
             "ilsvrc12", "ilsvrc12-top5", "single"]  # fmt: skip
    assert found == list(zip(names, METRICS.values(), strict=True))


def test_the_columns_of_the_csv_file_stay(store, three):
    assert tables.render(three, store, fmt="csv").splitlines()[0] == (
        "suite,condition,row,method,told,metric,mean,std,n,planned,failed,networks,reference,difference,"
        "difference_std,p_unadjusted,marks"
    )
