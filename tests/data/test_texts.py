"""From texts to numbers of words: an independent reading, and texts that are odd."""

import string
import unicodedata

import numpy as np
import pytest

from nlbench.data.texts import numbered, vocabulary_of, words_of


def reference_words(text):
    """Return the words by walking over the characters, without a regular expression."""
    text = unicodedata.normalize("NFC", text).lower()
    for apostrophe in "\u2019\u2018\u02bc":
        text = text.replace(apostrophe, "'")

    def inside(i):
        return 0 <= i < len(text) and (text[i].isalnum() or text[i] == "_")

    words, word = [], ""
    for i, character in enumerate(text):
        if inside(i) or (character == "'" and inside(i - 1) and inside(i + 1)):
            word += character
        elif word:
            words.append(word)
            word = ""
    return [*words, word] if word else words


def test_words_are_those_of_a_walk_over_the_characters():
    rng = np.random.default_rng(0)
    characters = np.array(
        [*string.ascii_letters, *" \n\t'',.!-_<>/\"0123456789\u00e9\u2019\u4f60\u597d"]
    )
    for _ in range(200):
        text = "".join(rng.choice(characters, rng.integers(0, 60)))
        assert words_of(text) == reference_words(text), text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don\u2019t! It's 3.5 stars", ["don't", "it's", "3", "5", "stars"]),
        ("'quoted' words'", ["quoted", "words"]),
        ("cafe\u0301", ["caf\u00e9"]),
        ("n/a", ["n", "a"]),
        ("null", ["null"]),
        ("...", []),
        ("", []),
        ("\U0001f600", []),
    ],
)
def test_words_of_odd_texts(text, words):
    assert words_of(text) == words


def test_the_vocabulary_is_the_most_frequent_words_and_ties_go_by_their_letters():
    texts = [["b", "a", "c"], ["c", "d"], ["c", "b"], []]
    assert vocabulary_of(texts, 100) == {"c": 2, "b": 3, "a": 4, "d": 5}
    # Two of the numbers are for padding and for unknown words.
    assert vocabulary_of(texts, 4) == {"c": 2, "b": 3}
    assert vocabulary_of([], 100) == {}


def test_the_last_words_are_kept_and_padding_follows_them():
    vocabulary = {"a": 2, "b": 3}
    texts = [["a"], ["a", "b", "z"], ["a", "a", "b", "a"], []]
    rows = numbered(texts, vocabulary, 3)

    assert rows.dtype == np.int64
    # "z" is unknown, which is 1, and a text without words is one unknown word.
    assert rows.tolist() == [[2, 0, 0], [2, 3, 1], [2, 3, 2], [1, 0, 0]]
