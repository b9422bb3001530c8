"""Sentences for the probes: real ones, distinct, evenly drawn, and the same for the same seed."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.sentences import sample_sentences, sentences_in
from attninf_assets_tests.support.source_files import json_lines


def _corpus(tmp_path: Path, *, domains: int, shards: int, documents: int) -> list[Shard]:
    made = []
    for d in range(domains):
        for s in range(shards):
            path = tmp_path / f"{d}-{s}.jsonl"
            texts = [
                f"Domain {d} has shard {s} with document {i}. It is the same everywhere." for i in range(documents)
            ]
            path.write_bytes(json_lines([{"text": text} for text in texts]))
            made.append(Shard(f"d{d}", f"s{s}", str(path), "jsonl", "text", None))
    return made


def test_sentences_are_found_within_a_line() -> None:
    text = (
        "The first one is here. Is this the second one? too small a start here. Three short words!\n"
        "This one runs on over\nthe end of its line. Yes it does indeed!\n"
        "    Émile has wide margins around him.   \n\n"
        "No end to this one"
    )
    assert list(sentences_in(text)) == [
        "The first one is here.",
        "Is this the second one?",
        "Yes it does indeed!",
        "Émile has wide margins around him.",
    ]


@given(text=st.text(st.sampled_from("AB ab.!?\n\r\t\u2028é"), max_size=60))
def test_every_sentence_is_one(text: str) -> None:
    for sentence in sentences_in(text):
        assert sentence in text
        assert sentence[0].isupper()
        assert sentence[-1] in ".!?"
        assert len(sentence.split()) >= 4
        assert sentence.splitlines() == [sentence]


def test_a_sentence_that_never_ends_is_left_out() -> None:
    assert list(sentences_in("A " + "very " * 200 + "long one.")) == []


def test_sentences_are_distinct_and_at_most_n(tmp_path: Path) -> None:
    shards = _corpus(tmp_path, domains=2, shards=2, documents=5)
    everything = sample_sentences(shards, n=1000, seed=0)
    assert len(everything) == len(set(everything)) == 2 * 2 * 5 + 1
    assert sample_sentences(shards, n=7, seed=0) == everything[:7]
    assert sample_sentences(shards, n=0, seed=0) == []


def test_the_order_of_listing_does_not_matter_and_the_seed_does(tmp_path: Path) -> None:
    shards = _corpus(tmp_path, domains=3, shards=4, documents=5)
    first = sample_sentences(shards, n=20, seed=1, shards_per_domain=2)
    for i in range(5):
        shuffled = random.Random(i).sample(shards, len(shards))
        assert sample_sentences(shuffled, n=20, seed=1, shards_per_domain=2) == first
    assert sample_sentences(shards, n=20, seed=2, shards_per_domain=2) != first


def test_sentences_are_spread_evenly_over_domains_and_shards(tmp_path: Path) -> None:
    shards = _corpus(tmp_path, domains=3, shards=4, documents=20)
    drawn = [s for s in sample_sentences(shards, n=60, seed=0) if s.startswith("Domain")]
    assert len(drawn) >= 59
    for d in range(3):
        for s in range(4):
            assert 4 <= sum(sentence.startswith(f"Domain {d} has shard {s} ") for sentence in drawn) <= 6


def test_only_the_first_documents_of_a_shard_are_read(tmp_path: Path) -> None:
    shards = _corpus(tmp_path, domains=1, shards=1, documents=100)
    assert len(sample_sentences(shards, n=1000, seed=0, documents_per_shard=10)) == 11


def test_only_some_shards_of_a_domain_are_opened(tmp_path: Path) -> None:
    shards = _corpus(tmp_path, domains=1, shards=6, documents=1)
    found = sample_sentences(shards, n=1000, seed=0, shards_per_domain=2)
    assert sum(sentence.startswith("Domain") for sentence in found) == 2


def test_refused_rows_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"not json\n" + json_lines([{"text": None}, {"text": "Here is a good sentence."}]))
    shard = Shard("web", "x", str(path), "jsonl", "text", None)
    assert sample_sentences([shard], n=5, seed=0) == ["Here is a good sentence."]


def test_a_file_that_cannot_be_read_is_told_and_the_next_one_drawn_takes_its_place(tmp_path: Path) -> None:
    shards = _corpus(tmp_path, domains=2, shards=6, documents=3)

    def drawn(sentences: list[str]) -> set[str]:
        found = (re.match(r"Domain (\d) has shard (\d) ", sentence) for sentence in sentences)
        return {f"d{match[1]}.s{match[2]}" for match in found if match}

    first = drawn(sample_sentences(shards, n=1000, seed=3, shards_per_domain=2))
    broken = {min(first): b"", max(first): b"{}"}
    for shard in shards:
        if shard.key in broken:
            Path(shard.uri).write_bytes(broken[shard.key])
    with pytest.raises(ValueError, match=r"\.jsonl: "):
        sample_sentences(shards, n=1000, seed=3, shards_per_domain=2)
    told: dict[str, str] = {}
    found = sample_sentences(
        shards, n=1000, seed=3, shards_per_domain=2, pass_over=lambda s, error: told.update({s.key: str(error)})
    )
    assert set(told) == set(broken)
    assert "holds no rows" in told[min(first)]
    assert len(drawn(found)) == len(first) == 4
    assert drawn(found) & first == first - set(broken)
    backwards = sample_sentences(shards[::-1], n=1000, seed=3, shards_per_domain=2, pass_over=lambda *_: None)
    assert backwards == found


def test_of_a_domain_of_broken_files_only_some_are_tried(tmp_path: Path) -> None:
    shards = _corpus(tmp_path, domains=1, shards=9, documents=1)
    for shard in shards:
        Path(shard.uri).write_bytes(b"")
    told: list[str] = []
    assert sample_sentences(shards, n=9, seed=0, shards_per_domain=2, pass_over=lambda s, _: told.append(s.key)) == []
    assert len(told) == 8
