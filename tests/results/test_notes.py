"""What the notes below a table say of runs with signs of a training that did not work."""

import pytest
from in_memory import Memory, results_of

from nlbench.results import notes


@pytest.mark.parametrize(
    ("sign", "of_one", "of_two"),
    [
        ("one-class", "1 of 1 run predicts one class only", "2 of 2 runs predict one class only"),
        ("not-finite", "1 of 1 run has outputs that", "2 of 2 runs have outputs that"),
        ("constant-loss", "1 of 1 run had the same loss", "2 of 2 runs had the same loss"),
    ],
)
def test_the_verb_is_that_of_the_number_of_runs(sign, of_one, of_two):
    for count, words in ((1, of_one), (2, of_two)):
        results = results_of(Memory(), {"ce": [0.1] * count}, seeds=count)
        for record in results.records_of("ce", 0):
            record.method["signs"] = [sign]
        assert any(f"§ ce on Digits: {words}" in note for note in notes.of_marks(results))
