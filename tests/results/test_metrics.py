"""The one list of metrics, and that an entry in it is all that a table needs."""

import json
from pathlib import Path
from typing import get_type_hints

import pytest

import nlbench
from nlbench.errors import SuiteError
from nlbench.results import metrics, one_condition, record, table
from nlbench.results.metrics import DETAILS, MEASURES, METRICS, Metric, check_metric
from nlbench.results.published import records as published
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

DONE = Path(__file__).parent / "records" / "0.1-done.json"


def test_names_keys_and_places_are_each_given_once():
    keys = set()
    places = []
    for name, metric in METRICS.items():
        assert metric.name == name
        keys.add(metric.key)
        if metric.details:
            places.append(metric.details)

    assert len(keys) == len(METRICS)
    assert sorted(places) == list(range(1, len(places) + 1))
    assert [metric.details for metric in DETAILS] == sorted(places)


def test_a_metrics_key_is_no_other_column_of_a_data_frame():
    others = {"key", "status", "dataset", "labels", "seed", "protocol", "model", "params", "error"}
    for part in (record.NoiseFacts, record.MethodFacts, record.Environment):
        others |= set(get_type_hints(part))

    # A data frame has one column for each, so one would hide the other.
    for metric in METRICS.values():
        assert metric.key not in others


def test_what_sources_report_is_told_apart():
    tested_on = {number.dataset for number in published.load()}

    assert len(set(MEASURES.values())) == len(MEASURES)
    for reported in MEASURES.values():
        assert reported.measure in ("top1", "top5")
        assert reported.selection in published.SELECTIONS
        assert reported.test_set in {"", *tested_on}


def test_an_unknown_metric_is_named_with_a_suggestion():
    check_metric("last")

    with pytest.raises(
        SuiteError, match=r"--metric lst: unknown. There are: last, .*Did you mean 'last'"
    ):
        check_metric("lst")


def test_one_entry_brings_a_metric_into_table_csv_and_data_frame(tmp_path, monkeypatch):
    # The entry is the only change; the record has the value under the entry's key.
    entry = Metric(
        "calibration",
        key="expected_calibration_error",
        heading="calibration error",
        meaning="expected calibration error after the last epoch",
        details=len(DETAILS) + 1,
    )
    monkeypatch.setitem(metrics.METRICS, "calibration", entry)
    monkeypatch.setattr(one_condition, "DETAILS", (*DETAILS, entry))
    values = json.loads(DONE.read_bytes())
    values["metrics"]["expected_calibration_error"] = 0.0625
    run = RunRecord.model_validate(values)
    store = Store(tmp_path)
    store.write(run, [])
    plan = {
        "suite": "s",
        "track": "identical",
        "protocol": "digits",
        "conditions": ["Digits"],
        "seeds": [0],
        "rows": [{"row": "co-teaching", "method": "co-teaching", "told": [], "networks": 2}],
        "cells": [{"row": "co-teaching", "condition": 0, "seed": 0, "key": run.key}],
    }

    assert "| calibration error |" in table.render(plan, store, details=True)
    assert "6.25" in table.render(plan, store, metric="calibration")
    assert ",calibration,0.0625," in table.render(plan, store, fmt="csv")
    assert nlbench.load(tmp_path)["expected_calibration_error"].tolist() == [0.0625]


def test_a_metric_that_is_no_share_is_printed_in_its_unit(tmp_path):
    values = json.loads(DONE.read_bytes())
    values["metrics"] |= {"nll": 1.5, "labelwave_epoch": 3, "ece": 0.25}
    run = RunRecord.model_validate(values)
    store = Store(tmp_path)
    store.write(run, [])
    cell = {"row": "co-teaching", "condition": 0, "seed": 0, "key": run.key}
    plan = {
        "suite": "s",
        "track": "identical",
        "protocol": "digits",
        "conditions": ["Digits"],
        "seeds": [0],
        "rows": [{"row": "co-teaching", "method": "co-teaching", "told": [], "networks": 2}],
        "cells": [cell],
    }

    for metric, unit, value in (
        ("nll", "nats", "1.50"),
        ("labelwave-epoch", "epochs", "3.00"),
        ("ece", "%", "25.00"),
    ):
        text = table.render(plan, store, metric=metric)
        assert f" in {unit}, mean" in text
        (line,) = [line for line in text.splitlines() if line.startswith("| co-teaching")]
        assert line.split("|")[2].strip(" *°") == value
    assert ",nll,1.5," in table.render(plan, store, fmt="csv")
