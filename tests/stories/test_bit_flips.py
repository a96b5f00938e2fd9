"""Flipped bits in the files of a store and of the cache: each that changes a result is named."""

import random
from collections import Counter

import bit_flips
import pytest

pytestmark = pytest.mark.nightly


def test_no_flipped_bit_changes_a_result_in_silence(tmp_path):
    done = bit_flips.flips(tmp_path, 60)
    results = Counter(flip.result for flip in done)

    assert set(results) <= {bit_flips.NAMED, bit_flips.UNCHANGED}, bit_flips.report(done)
    # Most bytes of a record, of an array and of a checkpoint are none of which the change is free.
    assert results[bit_flips.NAMED] > results[bit_flips.UNCHANGED]


@pytest.mark.parametrize("kind", bit_flips.SHARES)
def test_a_file_that_is_written_again_as_it_was_is_no_damage(tmp_path, kind):
    flip = bit_flips.Laboratory(tmp_path).flip(kind, random.Random(0), really=False)

    assert (flip.result, flip.kind) == (bit_flips.UNCHANGED, kind), flip.said
