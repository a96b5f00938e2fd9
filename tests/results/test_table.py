"""Tables of hand-written records equal numbers computed by hand."""

import csv
import io
import itertools
import json
import math
import statistics

import pytest

from nlbench.code_hash import code_hash
from nlbench.errors import StoreError, SuiteError
from nlbench.plan.spec import key_of
from nlbench.registry import method_files
from nlbench.results import statistics as statistics_
from nlbench.results import table as tables
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

# Row -> the metric `last` by seed.
VALUES = {
    "ce": {0: 0.70, 1: 0.72, 2: 0.74},
    "elr": {0: 0.90, 1: 0.93, 2: 0.93},
    "gce": {0: 0.80, 1: 0.85},
}


def record(row, seed, last=None, status="done", **changes):
    """Return the record of a run on digits. Without `last` it has no metrics."""
    spec = {"method": row, "seed": seed, "params": {}, "dataset": "digits"}
    spec["labels"] = changes.pop("labels", "clean")
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
    metrics = {}
    if last is not None:
        metrics = {"last": last, "best": last + 0.01, "last10": last}
    present_code = code_hash(method_files()[row].path, "digits_cnn", spec["dataset"])

    return RunRecord(
        key=key_of(spec),
        status=status,
        spec=spec,
        metrics=metrics,
        noise={**noise, **changes.pop("noise", {})},
        timing={},
        environment=environment,
        method={"told": [], "networks": 1, "forward_passes": 1.0},
        code=changes.pop("code", None) or present_code,
        **changes,
    )


def plan(store, records, conditions=("Digits symmetric 0.4",), seeds=(0, 1, 2)):
    """Write the records and return a plan with a cell for each row, condition and seed.

    `records` is {(row, condition, seed): record}. A cell without a record has a key of zeros.
    """
    rows = list(dict.fromkeys(row for row, _, _ in records))
    cells = []
    for row, c, seed in itertools.product(rows, range(len(conditions)), seeds):
        key = "0" * 16
        if (row, c, seed) in records:
            run = records[row, c, seed]
            key = run.key
            store.write(run, [])
        cells.append({"row": row, "condition": c, "seed": seed, "key": key})

    return {
        "suite": "s",
        "track": "identical",
        "protocol": "digits",
        "rows": [{"row": row, "method": row, "told": [], "networks": 1} for row in rows],
        "conditions": list(conditions),
        "seeds": list(seeds),
        "cells": cells,
    }


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def three(store):
    """Write the runs of `VALUES` and return their plan: three rows, one condition, three seeds."""
    records = {}
    for row, by_seed in VALUES.items():
        for seed, value in by_seed.items():
            records[row, 0, seed] = record(row, seed, value)
    return plan(store, records)


def lines(text):
    """Return the lines of a Markdown table by their first cell."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| "):
            found[cells(line)[0]] = line
    return found


def cells(line):
    """Return the cells of one line of a Markdown table."""
    return [part.strip() for part in line.strip("|").split("|")]


def csv_lines(text):
    """Return the lines of a CSV table as dictionaries by column."""
    return list(csv.DictReader(io.StringIO(text)))


def test_mean_and_sample_std_over_seeds(store, three):
    table = lines(tables.render(three, store))

    assert cells(table["ce"])[1] == "72.00±2.00"
    # The std of .90 .93 .93 with n - 1 is .0173.
    assert cells(table["elr"])[1] == "92.00±1.73"
    assert cells(table["gce"])[1] == "82.50±3.54 (2/3)"


def test_paired_differences_and_their_p_values(store, three):
    by_row = {}
    for line in csv_lines(tables.render(three, store, fmt="csv")):
        if line["metric"] == "last":
            by_row[line["row"]] = line
    elr = by_row["elr"]
    deltas = [0.20, 0.21, 0.19]

    assert float(elr["difference"]) == pytest.approx(statistics.fmean(deltas))
    assert float(elr["difference_std"]) == pytest.approx(0.01)

    # t = 0.2 / (0.01 / sqrt 3) = 34.64 with 2 degrees of freedom.
    # There P(|T| > t) = 1 - t / sqrt(2 + t^2).
    t = 0.2 / (0.01 / math.sqrt(3))
    assert float(elr["p_unadjusted"]) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)

    # gce and ce have two seeds in common, with differences of +0.10 and +0.13.
    gce = by_row["gce"]
    assert float(gce["difference"]) == pytest.approx(0.115)
    assert (gce["n"], gce["planned"]) == ("2", "3")
    assert by_row["ce"]["p_unadjusted"] == ""


def test_holm_by_hand():
    assert statistics_.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics_.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics_.holm([]) == []


def test_another_reference_and_an_unknown_one(store, three):
    table = lines(tables.render(three, store, against="gce"))

    # The differences are .90 - .80 = .10 and .93 - .85 = .08.
    assert cells(table["elr"])[3].startswith("+9.00±1.41")
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
    records = {}
    for (row, c), value in values.items():
        records[row, c, 0] = record(row, 0, value, labels="AB"[c])
    p = plan(store, records, ("A", "B"), seeds=(0,))
    text = tables.render(p, store)
    head, differences = text.split("\n**s: last epoch, minus ce")

    assert cells(lines(head)["elr"]) == ["elr", "80.00", "90.00", "1"]
    assert cells(lines(differences)["elr"]) == ["elr", "+20.00", "+20.00"]
    assert "ce" not in lines(differences)
    assert "over 1 seed;" in text

    best = lines(tables.render(p, store, metric="best"))
    assert cells(best["ce"]) == ["ce", "61.00", "71.00", "1"]

    detailed = tables.render(p, store, details=True)
    assert detailed.count("\n| method") == 2


def test_precisions_and_devices_are_not_mixed_unmarked(store):
    records = {
        ("ce", 0, 0): record("ce", 0, 0.5),
        ("ce", 0, 1): record("ce", 1, 0.5, environment={"device": "cuda"}),
    }
    text = tables.render(plan(store, records, seeds=(0, 1)), store)

    assert cells(lines(text)["ce"])[1] == "50.00±0.00‡"
    assert "‡ contains or compares runs of different precision or device class" in text


def test_a_difference_across_device_classes_is_marked(store):
    records = {}
    for seed in (0, 1):
        records["ce", 0, seed] = record("ce", seed, 0.5)
        on_gpu = record("elr", seed, 0.6 + seed / 10, environment={"device": "cuda"})
        records["elr", 0, seed] = on_gpu
    text = tables.render(plan(store, records, seeds=(0, 1)), store)

    assert cells(lines(text)["elr"])[3].endswith("‡")
    assert cells(lines(text)["elr"])[1] == "65.00±7.07"
    assert "‡ contains or compares" in text


def test_runs_of_different_processors_are_counted_in_the_notes(store):
    avx2 = {"device_name": "A", "cpu_capability": "AVX2", "kernels": "avx2", "mkldnn": True}
    avx512 = {**avx2, "cpu_capability": "AVX512", "kernels": "avx512"}
    records = {}
    for seed, environment in enumerate([avx2, avx512, avx512]):
        records["ce", 0, seed] = record("ce", seed, 0.5, environment=environment)
    text = tables.render(plan(store, records), store)

    assert (
        "p-values change (number of runs in brackets): CPU instructions of torch: AVX2 (1), "
        "AVX512 (2); CPU instructions of nlbench's kernels: avx2 (1), avx512 (2)."
    ) in text

    # What an older version has not recorded may be something else.
    old = {"device_name": "A"}
    records = {
        ("ce", 0, seed): record("ce", seed, 0.6, environment=environment)
        for seed, environment in enumerate([avx2, old])
    }
    text = tables.render(plan(store, records, seeds=(0, 1)), store)
    assert "oneDNN: True (1), not recorded (1)" in text

    same = {("ce", 0, s): record("ce", s, 0.7, environment=avx2) for s in (0, 1, 2)}
    assert "different processors" not in tables.render(plan(store, same), store)


def test_one_metric_alone_with_one_condition(store, three):
    text = tables.render(three, store, metric="best")
    assert "test accuracy at the epoch that is best on the test set, an oracle in %" in text
    assert cells(lines(text)["ce"]) == ["ce", "73.00±2.00", "1"]


def test_a_record_of_other_code_is_marked(store, three):
    assert "made by another version of the code" not in tables.render(three, store)

    records = {
        ("ce", 0, 0): record("ce", 0, 0.5),
        ("ce", 0, 1): record("ce", 1, 0.5, code="other"),
    }
    text = tables.render(plan(store, records, seeds=(0, 1)), store)

    assert cells(lines(text)["ce"])[1] == "50.00±0.00*"
    assert "* made by another version of the code" in text


def test_the_mark_of_other_code_is_also_at_the_difference_and_in_every_format(store):
    records = {
        ("ce", 0, 0): record("ce", 0, 0.5, code="other"),
        ("elr", 0, 0): record("elr", 0, 0.6),
        ("gce", 0, 0): record("gce", 0, 0.7),
    }
    of_suite = plan(store, records, seeds=(0,))
    text = tables.render(of_suite, store)

    # The record of ce is stale, and so are the differences to it.
    assert "+10.00*" in lines(text)["elr"]
    assert "60.00*" not in lines(text)["elr"]
    assert "+10.00*" in tables.render(of_suite, store, fmt="latex")

    line = next(
        line
        for line in csv_lines(tables.render(of_suite, store, fmt="csv"))
        if (line["row"], line["metric"]) == ("elr", "last")
    )
    assert (line["marks"], line["difference_marks"]) == ("", "*")


@pytest.fixture
def own_method(store, tmp_path):
    """Write a plan with a run of a method in a folder, and return the plan and the file."""
    path = tmp_path / "own" / "mine.py"
    path.parent.mkdir()
    path.write_text(method_files()["ce"].path.read_text())
    code = code_hash(path, "digits_cnn", "digits")
    run = record("ce", 0, 0.5)
    spec = {**run.spec, "method": "mine"}
    run = run.model_copy(update={"spec": spec, "key": key_of(spec), "code": code})
    of_suite = plan(store, {("mine", 0, 0): run}, seeds=(0,))
    return {**of_suite, "method_files": {"mine": str(path)}}, path


def test_the_plan_names_the_file_of_a_method_outside_the_package(store, own_method):
    of_suite, path = own_method
    assert cells(lines(tables.render(of_suite, store))["mine"])[1] == "50.00"

    # As a file is read once in a process, the changed one has another name.
    changed = path.with_name("changed.py")
    changed.write_text(path.read_text() + "\nLAMBDA = 2\n")
    of_suite["method_files"]["mine"] = str(changed)
    text = tables.render(of_suite, store)

    assert cells(lines(text)["mine"])[1] == "50.00*"
    assert "* made by another version of the code" in text


@pytest.mark.parametrize("damage", ["removed", "not in the plan", "no Python", "a folder"])
def test_a_record_whose_code_is_not_found_is_marked(store, own_method, damage):
    of_suite, path = own_method
    if damage == "not in the plan":
        del of_suite["method_files"]
    elif damage == "no Python":
        # As a file is read once in a process, the broken one has another name.
        path = path.with_name("broken.py")
        path.write_text('def f(:\n  """')
        of_suite["method_files"]["mine"] = str(path)
    else:
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    text = tables.render(of_suite, store)

    assert cells(lines(text)["mine"])[1] == "50.00°"
    assert "° code not found, so it is unknown whether it has changed; give --methods-dir." in text
    assert r"50.00$^\circ$" in tables.render(of_suite, store, fmt="latex")
    assert csv_lines(tables.render(of_suite, store, fmt="csv"))[0]["marks"] == "°"


def test_a_damaged_record_is_counted_in_its_cell_and_named_below(store, three):
    first = three["cells"][0]["key"]
    path = store.run_dir(first) / "record.json"
    path.write_text(path.read_text().replace('"last": 0.7', '"last": 0.9'))
    text = tables.render(three, store)

    assert cells(lines(text)["ce"])[1] == "73.00±1.41 (2/3, ?1)"
    assert cells(lines(text)["elr"])[1] == "92.00±1.73"
    assert "? number of records that are damaged" in text
    assert f"runs/{first}/record.json: it was changed after it was written" in text

    line = csv_lines(tables.render(three, store, fmt="csv"))[0]
    assert (line["n"], line["damaged"]) == ("2", "1")


def test_a_cell_with_damaged_records_alone_is_not_empty(store):
    of_suite = plan(store, {("ce", 0, 0): record("ce", 0, 0.5)}, seeds=(0,))
    (store.run_dir(of_suite["cells"][0]["key"]) / "record.json").write_text("{")

    assert cells(lines(tables.render(of_suite, store))["ce"])[1] == "?1"


def test_files_that_no_number_depends_on_and_records_without_checksums_are_in_the_notes(store):
    of_suite = plan(store, {("ce", 0, 0): record("ce", 0, 0.5)}, seeds=(0,))
    folder = store.run_dir(of_suite["cells"][0]["key"])
    (folder / "history.csv").write_text("of another run")
    text = tables.render(of_suite, store)

    assert cells(lines(text)["ce"])[1] == "50.00"
    assert "Damaged files, on which no number in this table depends: runs/" in text

    values = json.loads((folder / "record.json").read_text())
    del values["checksums"]
    (folder / "record.json").write_text(json.dumps(values))
    text = tables.render(of_suite, store)

    assert cells(lines(text)["ce"])[1] == "50.00"
    assert "1 record has no checksum" in text


@pytest.mark.parametrize("part", ["environment", "noise", "method", "timing"])
def test_a_record_of_version_0_1_that_lacks_a_part_can_be_printed(store, part):
    of_suite = plan(store, {("ce", 0, 0): record("ce", 0, 0.5)}, seeds=(0,))
    path = store.run_dir(of_suite["cells"][0]["key"]) / "record.json"
    values = {**json.loads(path.read_text()), part: {}}
    del values["checksums"]
    path.write_text(json.dumps(values))

    assert cells(lines(tables.render(of_suite, store))["ce"])[1] == "50.00"
    assert r"50.00" in tables.render(of_suite, store, fmt="latex")
    assert csv_lines(tables.render(of_suite, store, fmt="csv"))[0]["mean"] == "0.5"


@pytest.mark.parametrize("other", [1, 3], ids=["another seed's", "another row's"])
def test_a_cell_that_names_another_run_is_refused(store, three, other):
    three["cells"][0]["key"] = three["cells"][other]["key"]
    with pytest.raises(StoreError, match=r"s\.json: damaged plan: its cell of row 'ce'"):
        tables.render(three, store)


def test_a_cell_that_names_a_run_under_another_condition_is_refused(store):
    records = {}
    for seed, c in itertools.product((0, 1), (0, 1)):
        records["ce", c, seed] = record("ce", seed, 0.5, labels="AB"[c])
    of_suite = plan(store, records, ("A", "B"), seeds=(0, 1))
    for cell in of_suite["cells"]:
        if cell["seed"] == 1:
            cell["condition"] = 1 - cell["condition"]

    with pytest.raises(StoreError, match="damaged plan: its cell of row 'ce'"):
        tables.render(of_suite, store)


def test_lossy_pixels_and_measured_noise_are_in_the_notes(store):
    records = {("ce", 0, 0): record("ce", 0, 0.5, noise={"variant": "JPEG"})}
    text = tables.render(plan(store, records, seeds=(0,)), store)

    assert (
        "measured noise rate 40.00% of the training labels (40.20% of all labels), "
        "drawn anew for each seed"
    ) in text
    assert "The images are a JPEG copy" in text


def test_the_notes_say_what_was_measured(store):
    other = {"num_train": 80, "num_val": 10, "noise_rate_train": 0.45, "redrawn": False}
    records = {
        ("ce", 0, 0): record("ce", 0, 0.5, noise={"redrawn": False}),
        ("ce", 0, 1): record("ce", 1, 0.5, noise=other),
    }
    text = tables.render(plan(store, records, ("A",), seeds=(0, 1)), store)

    assert (
        "- A: measured noise rate 40.00% to 45.00% of the training labels (40.20% of all labels), "
        "the same for all seeds; 80 training, 10 validation, 10 test examples; "
        "90 training, 10 test examples.\n"
    ) in text


def test_an_unknown_noise_rate_and_a_published_estimate_are_in_the_notes(store):
    noise = {"noise_rate_train": None, "noise_rate_full": None, "estimated_rate": 0.38}
    run = record("ce", 0, 0.5, noise=noise)
    of_suite = plan(store, {("ce", 0, 0): run}, ("A",), seeds=(0,))

    assert "published estimate" not in tables.render(of_suite, store)

    # Only a method that is given the noise rate makes its source worth a note.
    of_suite["rows"][0]["told"] = ["noise_rate"]
    text = tables.render(of_suite, store)

    assert (
        "- A: noise rate unknown (this dataset has no true labels); 90 training, 10 test examples."
        in text
    )
    assert "- told noise_rate: the methods are given a published estimate, 38%;" in text


def test_latex_has_one_line_for_each_row(store, three):
    text = tables.render(three, store, fmt="latex")

    assert r"\begin{tabular}{lrrrr}" in text
    assert r"elr & 92.00$\pm$1.73 &" in text
    assert "±" not in text.split(r"\begin{tabular}")[1].split(r"\end{tabular}")[0]


def test_a_method_that_replaced_the_protocols_optimiser_is_named(store):
    own = {("gce", 0, 0): record("gce", 0, 0.8), ("ce", 0, 0): record("ce", 0, 0.7)}
    own["gce", 0, 0].method["own_optimisers"] = ["network0"]
    text = tables.render(plan(store, own, seeds=(0,)), store)

    assert "- Methods that replace the protocol's optimiser: gce.\n" in text


# All values differ, so that a swap of two columns is seen.
METRICS = {
    "last": 0.10,
    "last10": 0.11,
    "best": 0.12,
    "selected": 0.13,
    "last_top5": 0.14,
    "final_wrong_memorised": 0.15,
    "final_clean_right": 0.16,
    "target_accuracy": 0.17,
    "selected_clean": 0.18,
    "ilsvrc12_last": 0.19,
    "ilsvrc12_last_top5": 0.20,
    "single_mean": 0.21,
}


@pytest.mark.parametrize("crop", [0, 224])
def test_each_metric_is_in_its_column(store, crop):
    run = record("ce", 0, 0.1)
    run.metrics.update(METRICS)
    run.spec["protocol"]["crop"] = crop
    run = RunRecord.model_validate({**run.as_json(), "key": key_of(run.spec)})
    of_suite = plan(store, {("ce", 0, 0): run}, seeds=(0,))
    text = tables.render(of_suite, store, against="ce", details=True)
    expected = {
        "method": "ce",
        "last epoch": "10.00",
        "top-5": "14.00",
        "last 10 epochs": "11.00",
        "best (oracle)": "12.00",
        "selected": "13.00",
        "selected on clean val": "18.00",
        "ILSVRC12": "19.00",
        "ILSVRC12 top-5": "20.00",
        "single network": "21.00",
        "clean right": "16.00",
        "memorised": "15.00",
        "last, minus ce": "",
        "nets": "1",
        "passes": "1",
    }
    # Top-5 accuracy is for the datasets of image files, whose protocols crop.
    if not crop:
        del expected["top-5"]

    assert cells(lines(text)["method"]) == list(expected)
    assert cells(lines(text)["ce"]) == list(expected.values())


def test_the_lines_of_the_csv_file_are_by_metric_in_the_order_of_the_list(store):
    run = record("ce", 0, 0.1)
    run.metrics.update(METRICS)
    text = tables.render(plan(store, {("ce", 0, 0): run}, seeds=(0,)), store, fmt="csv")
    found = csv_lines(text)

    assert [line["metric"] for line in found] == [
        "last",
        "last10",
        "best",
        "selected",
        "top5",
        "memorised",
        "clean-right",
        "targets",
        "selected-clean",
        "ilsvrc12",
        "ilsvrc12-top5",
        "single",
    ]
    assert [float(line["mean"]) for line in found] == list(METRICS.values())


def test_the_columns_of_the_csv_file_stay(store, three):
    assert tables.render(three, store, fmt="csv").splitlines()[0] == (
        "suite,condition,row,method,told,metric,mean,std,n,planned,failed,networks,reference,"
        "difference,difference_std,p_unadjusted,marks,difference_marks,damaged"
    )


# ---- What is shown -------------------------------------------------------------------------------


@pytest.fixture
def full(store):
    """Write runs with all metrics and return their plan: ten rows, of which ce is the first."""
    records = {}
    for row in ("ce", "elr", "gce", "sl", "mae", "forward", "backward", "alr", "mixup", "sop"):
        for seed in (0, 1, 2):
            run = record(row, seed, 0.5 + 0.01 * seed + len(row) / 100 * (seed + 1))
            run.metrics.update({k: v for k, v in METRICS.items() if k != "last"})
            records[row, 0, seed] = run
    return plan(store, records)


def test_the_table_fits_80_columns_and_details_has_every_cell(store, full):
    narrow = tables.render(full, store, width=80)
    wide = tables.render(full, store, details=True)

    assert max(map(len, narrow.splitlines())) <= 80
    assert cells(lines(narrow)["method"]) == [
        "method",
        "last epoch",
        "best (oracle)",
        "last, minus ce",
        "ties",
        "nets",
    ]
    assert "memorised" in narrow.split("`nlbench table --details` also shows: ")[1]

    headings = cells(lines(wide)["method"])
    for row, line in lines(narrow).items():
        in_details = dict(zip(headings, cells(lines(wide)[row]), strict=True))
        for heading, cell in zip(cells(lines(narrow)["method"]), cells(line), strict=True):
            assert in_details[heading].strip("-:") == cell.strip("-:")


def test_with_long_names_less_important_columns_are_left_out(store, full):
    full["rows"][1]["row"] = name = "a method with a name of thirty"
    for cell in full["cells"]:
        cell["row"] = name if cell["row"] == "elr" else cell["row"]
    text = tables.render(full, store, width=80)

    assert max(map(len, text.splitlines())) <= 80
    assert cells(lines(text)["method"]) == ["method", "last epoch", "last, minus ce", "ties"]
    assert "also shows: last 10 epochs, best (oracle)," in " ".join(text.split())
    # A wider terminal has room for them.
    assert "| nets |" in tables.render(full, store, width=120)


def test_columns_can_be_chosen(store, full):
    text = tables.render(full, store, columns=("memorised", "minus", "last", "passes"))

    headings = ["method", "memorised", "last, minus ce", "last epoch", "passes"]
    assert cells(lines(text)["method"]) == headings
    assert cells(lines(text)["ce"])[:2] == ["ce", "15.00±0.00"]
    assert "memorised: share of the wrongly labelled" in text
    assert "clean right" not in text

    with pytest.raises(SuiteError, match=r"--columns: unknown column 'lst'.*Did you mean 'last'"):
        tables.render(full, store, columns=("lst",))


def test_columns_of_several_conditions_are_one_table_each(store, full):
    full["conditions"] = ["A", "B"]
    full["cells"] += [{**cell, "condition": 1} for cell in full["cells"]]
    text = tables.render(full, store, columns=("last", "best"))

    assert text.count("| method ") == 2
    assert "**s: B; test accuracy" in text


def test_differences_need_a_row_to_take_them_to(store):
    of_suite = plan(store, {("elr", 0, 0): record("elr", 0, 0.5)}, seeds=(0,))

    with pytest.raises(SuiteError, match=r"--columns minus: the suite has no row `ce`.*--against"):
        tables.render(of_suite, store, columns=("last", "minus"))
    assert "minus elr" in tables.render(of_suite, store, columns=("minus",), against="elr")


def test_only_shows_these_rows_and_their_reference(store, full):
    every = tables.render(full, store)
    text = tables.render(full, store, only=("gce", "elr"))
    shown = lines(text)

    assert [row for row in shown if not row.startswith(("-", "method"))] == ["ce", "elr", "gce"]
    assert "- 7 of 10 rows are not shown; p-values are corrected for all of them." in text
    # Corrected for all rows, so that nobody gets a smaller p-value by showing fewer.
    for row in ("elr", "gce"):
        assert cells(shown[row]) == cells(lines(every)[row])


def test_only_shows_no_reference_where_no_difference_is(store, full):
    shown = lines(tables.render(full, store, only=("elr",), metric="best"))
    assert set(shown) - {"method"} == {"elr", next(row for row in shown if row.startswith("-"))}

    found = csv_lines(tables.render(full, store, only=("elr",), fmt="csv"))
    assert {line["row"] for line in found} == {"elr"}
    assert {line["reference"] for line in found} == {"ce"}


def test_only_with_an_unknown_row_is_refused(store, full):
    with pytest.raises(SuiteError, match=r"--only el: no such row. There are: ce,.*Did you mean"):
        tables.render(full, store, only=("el",))


def test_a_csv_file_of_one_metric(store, full):
    found = csv_lines(tables.render(full, store, metric="best", fmt="csv", against="gce"))

    assert {line["metric"] for line in found} == {"best"}
    assert {line["reference"] for line in found} == {"gce", ""}
    assert len(found) == 10


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"metric": "last", "against": "gce"}, "--metric and --against exclude each other"),
        ({"metric": "last", "details": True}, "--metric and --details exclude"),
        ({"metric": "last", "columns": ("best",)}, "--metric and --columns exclude"),
        ({"details": True, "columns": ("best",)}, "--details and --columns exclude"),
        ({"published": True, "against": "gce"}, "--published and --against exclude"),
        ({"published": True, "columns": ("best",)}, "--published and --columns exclude"),
        ({"fmt": "csv", "details": True}, "--details and --format csv exclude"),
        ({"fmt": "csv", "columns": ("minus",)}, "--columns minus and --format csv exclude"),
        ({"fmt": "latex", "metric": "last", "against": "gce"}, "--metric and --against exclude"),
    ],
)
def test_options_of_which_one_does_nothing_are_refused(store, full, options, pattern):
    with pytest.raises(SuiteError, match=pattern):
        tables.render(full, store, **options)


OPTIONS = {
    "metric": "best",
    "against": "gce",
    "details": True,
    "published": True,
    "columns": ("memorised", "minus"),
    "only": ("elr",),
}


@pytest.mark.parametrize("fmt", ["md", "latex", "csv"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_option_that_is_accepted_changes_the_table(store, full, fmt, count):
    for chosen in itertools.combinations(OPTIONS, count):
        options = {name: OPTIONS[name] for name in chosen}
        try:
            text = tables.render(full, store, fmt=fmt, **options)
        except SuiteError:
            continue
        for name in chosen:
            fewer = {other: value for other, value in options.items() if other != name}
            assert tables.render(full, store, fmt=fmt, **fewer) != text, (options, name)


def test_names_are_safe_in_every_format(store, full):
    full["rows"][1]["row"] = "=1+1|x"
    for cell in full["cells"]:
        cell["row"] = "=1+1|x" if cell["row"] == "elr" else cell["row"]

    assert "| =1+1\\|x " in tables.render(full, store)
    assert r"=1+1\textbar{}x &" in tables.render(full, store, fmt="latex")
    found = csv_lines(tables.render(full, store, fmt="csv", against="=1+1|x"))
    assert {"'=1+1|x"} == {line["row"] for line in found if "=" in line["row"]}
    assert {"'=1+1|x", ""} == {line["reference"] for line in found}


def test_many_conditions_fit_80_columns(store, full):
    full["conditions"] = [f"Digits symmetric-inclusive 0.{i}" for i in range(4)]
    full["cells"] = [{**cell, "condition": i} for i in range(4) for cell in full["cells"]]
    text = tables.render(full, store, width=80)
    shown = [line for line in text.splitlines() if line.startswith("| elr")]

    assert max(map(len, text.splitlines())) <= 80
    # Two tables of accuracies, and two of differences.
    assert len(shown) == 4
    assert sum(len(cells(line)) - 1 for line in shown) == 8
    assert tables.render(full, store, width=300).count("| elr") == 2
