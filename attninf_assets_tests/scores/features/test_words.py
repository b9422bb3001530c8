"""Words as numbers, and the MinHash made of them."""

import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.scores.features.words import N_BANDS, ROWS_PER_BAND, SHINGLE, Words
from attninf_assets_tests.scores.features.test_measures import TEXTS
from attninf_assets_tests.support import feature_oracle as oracle


def _bands(*texts: str) -> list[list[int]]:
    bands: list[list[int]] = Words.of(pl.Series(texts, dtype=pl.String)).minhash_bands().to_pylist()
    return bands


@given(st.lists(TEXTS, max_size=4), st.integers(1, 6))
def test_grams_are_equal_where_the_words_are_and_cross_no_text(texts: list[str], n: int) -> None:
    hashes, of = Words.of(pl.Series(texts, dtype=pl.String)).grams(n)
    expected = [(number, gram) for number, text in enumerate(texts) for gram in oracle.shingles(text, n)]
    assert of.tolist() == [number for number, _ in expected]
    by_gram = dict(zip([gram for _, gram in expected], hashes.tolist(), strict=True))
    assert hashes.tolist() == [by_gram[gram] for _, gram in expected]
    assert len(set(by_gram.values())) == len(by_gram)


def _similar(rng: random.Random, *, n: int, changed: int) -> tuple[str, str]:
    one = [f"w{rng.randrange(10**6)}" for _ in range(n)]
    other = list(one)
    for place in rng.sample(range(n), changed):
        other[place] = f"v{place}"
    return " ".join(one), " ".join(other)


@pytest.mark.parametrize("changed", [1, 3, 8])
def test_texts_share_a_band_as_often_as_their_similarity_says(changed: int) -> None:
    rng = random.Random(changed)
    pairs = [_similar(rng, n=100, changed=changed) for _ in range(400)]
    found = _bands(*[text for pair in pairs for text in pair])
    shared = [bool(set(one) & set(other)) for one, other in zip(found[::2], found[1::2], strict=True)]
    similarity = [oracle.jaccard(one, other, SHINGLE) for one, other in pairs]
    expected = [1 - (1 - s**ROWS_PER_BAND) ** N_BANDS for s in similarity]
    assert sum(shared) / 400 == pytest.approx(sum(expected) / 400, abs=0.08)


def test_a_band_hash_says_which_band_it_is_of() -> None:
    (bands,) = _bands("the same five words here and nothing else")
    assert len(set(bands)) == N_BANDS


def test_order_of_words_counts_and_white_space_does_not() -> None:
    one, spaced, reordered = _bands("a b c d e f g", "a  b\nc d\te f g", "g f e d c b a")
    assert one == spaced
    assert not set(one) & set(reordered)


def test_below_five_words_there_is_nothing_to_compare() -> None:
    assert _bands("a b c d", "", "a b c d e")[:2] == [[], []]
    assert _bands() == []
