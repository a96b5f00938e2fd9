"""From texts to numbers of words, by a vocabulary of the training texts.

A text is brought to Unicode's form NFC and to lower case. Its words are runs of letters, digits and
underscores, which may hold apostrophes inside: "Don't!" is the word don't. All else parts words, so
that punctuation is left out. Texts of a language without spaces must be parted beforehand.

The vocabulary is the V - 2 words that occur most often in the training texts. Of words that occur
equally often, those come first that are first in the order of their code points. The words have the
numbers from 2 on, in this order. Number 0 is padding, which stands behind a text, and 1 is every
other word.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

PADDING, UNKNOWN = 0, 1
# Before the words of the vocabulary.
SPECIAL = 2

# The typographic apostrophe is read as the plain one.
_WORD = re.compile(r"\w+(?:'\w+)*")
_APOSTROPHES = str.maketrans("\u2019\u2018\u02bc", "'''")


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    plain = unicodedata.normalize("NFC", text).lower().translate(_APOSTROPHES)
    return _WORD.findall(plain)


def vocabulary_of(texts: Iterable[Sequence[str]], size: int) -> dict[str, int]:
    """Return the numbers of the most frequent words.

    Args:
        texts: the training texts, as words.
        size: V, with the numbers of padding and of unknown words.
    Returns: at most V - 2 words, numbered from 2 on in the order of their frequency.
    """
    counts: Counter[str] = Counter()
    for words in texts:
        counts.update(words)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(ordered[: size - SPECIAL], SPECIAL)}


def numbered(
    texts: Iterable[Sequence[str]], vocabulary: Mapping[str, int], length: int
) -> np.ndarray:
    """Return texts as numbers of words, (N, length) int64, with padding at the end.

    Of a longer text the last `length` words are kept. A text without words is one unknown word, so
    that every text has at least one.
    """
    rows = [[vocabulary.get(word, UNKNOWN) for word in words[-length:]] for words in texts]
    found = np.full((len(rows), length), PADDING, np.int64)
    for i, row in enumerate(rows):
        found[i, : max(len(row), 1)] = row or UNKNOWN
    return found
