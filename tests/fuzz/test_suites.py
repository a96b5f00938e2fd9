"""Damaged and odd suites: each is read and expanded, or refused with a message.

tests/plan/test_yaml.py damages the text of a suite. Here also its values change, so that they get
past the YAML and reach whatever reads them.
"""

from hypothesis import HealthCheck, given, settings
from mutations import (
    EXAMPLES,
    as_json,
    changed,
    changed_value,
    changes,
    outcome,
    value_changes,
)

from nlbench.data.places import Places
from nlbench.plan.expand import expand
from nlbench.plan.suite_file import read_suite

QUICKLY = {"deadline": None, "suppress_health_check": list(HealthCheck)}

# All that a suite may have, so that a change can be anywhere.
SUITE = {
    "name": "s",
    # The track in which a row may have a protocol of its own.
    "track": "as-published",
    "protocol": "digits",
    "overrides": {
        "epochs": 2,
        "lr": 0.1,
        "schedule": {"kind": "multistep", "milestones": [1], "gamma": 0.1},
    },
    "datasets": [
        {"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}},
        {"name": "digits", "noise": [{"kind": "pair-flip", "rate": 0.2}]},
    ],
    "methods": {
        "ce": {},
        "elr": {"lam": 3.0, "beta": 0.7},
        "strong": {"method": "dividemix", "protocol": {"lr": 0.02}},
    },
    "seeds": [0, 1],
}


def expanded(source, folder):
    """Read a suite, and return the number of its runs."""
    suite, problems = read_suite(source)
    return len(expand(suite, problems, places=Places(folder / "data", folder / "cache")).specs)


def test_the_suite_itself_is_sound(tmp_path):
    assert expanded(SUITE, tmp_path) == 12


def test_a_suite_of_odd_values_is_read_or_refused_with_a_message(tmp_path):
    @settings(max_examples=EXAMPLES, **QUICKLY)
    @given(value_changes())
    def check(made):
        outcome(lambda: expanded(changed_value(SUITE, made), tmp_path))

    check()


def test_a_damaged_suite_file_is_read_or_refused_with_a_message(tmp_path):
    path = tmp_path / "s.yaml"
    # JSON is YAML, too.
    whole = as_json(SUITE)
    path.write_bytes(whole)

    @settings(max_examples=EXAMPLES, **QUICKLY)
    @given(changes())
    def check(made):
        path.write_bytes(changed(whole, made))
        outcome(lambda: expanded(path, tmp_path))

    check()
