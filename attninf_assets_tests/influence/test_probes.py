import json
import re
import string
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.probes import Probe, build_probes, probes_digest, qualifying_values
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer, tiny_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

START = 1


def built(*, n_probes: int = 4, max_tokens: int = 700, seed: int = 0, corpus: tuple[str, ...] = ()) -> list[Probe]:
    return build_probes(
        corpus or sentences(),
        tiny_text_tokenizer(),
        start_token=START,
        n_probes=n_probes,
        max_tokens=max_tokens,
        seed=seed,
    )


def object_of(probe: Probe) -> dict[str, str]:
    """The probe's JSON object, as the json module reads it; repeated keys are an error."""

    def unique(pairs: list[tuple[str, str]]) -> dict[str, str]:
        assert len(dict(pairs)) == len(pairs), "keys repeat"
        return dict(pairs)

    decoder = json.JSONDecoder(object_pairs_hook=unique)
    found, _ = decoder.raw_decode(probe.text, probe.text.index("{"))
    return found


def questions_of(probe: Probe) -> list[tuple[str, str]]:
    """(key, value) of the demonstrations and, last, of the query with its gold answer."""
    return re.findall(r'^Key: "(.*)"\nValue: "(.*?)"?$', probe.text, flags=re.MULTILINE)


any_probes = st.builds(built, n_probes=st.integers(1, 5), max_tokens=st.integers(720, 1500), seed=st.integers(0, 10**6))


@settings(deadline=None, max_examples=15)
@given(probes=any_probes)
def test_a_probe_is_a_json_object_three_demonstrations_and_a_query_answered_from_the_object(
    probes: list[Probe],
) -> None:
    for probe in probes:
        pairs = object_of(probe)
        assert len(pairs) == probe.n_pairs
        for key in pairs:
            assert len(key) == 32
            assert set(key) <= set(string.ascii_letters + string.digits)
        assert len(set(pairs.values())) == len(pairs), "values repeat"
        assert set(pairs.values()) <= set(sentences())
        questions = questions_of(probe)
        assert len(questions) == 4
        assert all(pairs[key] == value for key, value in questions)
        assert len({key for key, _ in questions}) == 4, "the query is none of the demonstrations, which differ"
        assert list(pairs)[probe.query_index] == questions[-1][0]
        assert probe.text.endswith(questions[-1][1]), "the answer is the last thing in the probe"


@settings(deadline=None, max_examples=15)
@given(probes=any_probes)
def test_spans_hold_exactly_the_answers_tokens(probes: list[Probe]) -> None:
    for probe in probes:
        _, answer = questions_of(probe)[-1]
        expected = tuple(tiny_text_tokenizer().encode(answer))
        assert probe.token_ids[probe.answer_start : probe.answer_end] == expected
        assert probe.token_ids[probe.span_start : probe.span_end] == expected
        assert probe.answer_end == len(probe.token_ids)
        assert probe.answer_length == len(expected)
        assert 8 <= probe.answer_length <= 40
        # And the span is the one in the object, under the queried key.
        before = tiny_tokenizer().decode(list(probe.token_ids[1 : probe.span_start]))
        assert before == probe.text[: probe.text.index(answer)]


def test_control_tokens_in_sentences_are_their_characters_and_spans_stay_exact() -> None:
    corpus = tuple(f"The keeper wrote <s> and </s> on lamp {number}." for number in range(30))
    for probe in built(max_tokens=1200, corpus=corpus):
        assert probe.token_ids[0] == START
        assert not {0, 1, 2} & set(probe.token_ids[1:])
        answer = probe.token_ids[probe.answer_start : probe.answer_end]
        assert answer == probe.token_ids[probe.span_start : probe.span_end]
        assert tiny_tokenizer().decode(list(answer)) == questions_of(probe)[-1][1]
        assert tiny_tokenizer().decode(list(probe.token_ids[1:])) == probe.text


@settings(deadline=None, max_examples=15)
@given(probes=any_probes)
def test_tokens_are_the_start_token_and_then_the_text(probes: list[Probe]) -> None:
    for probe in probes:
        assert probe.token_ids[0] == START
        assert START not in probe.token_ids[1:]
        assert tiny_tokenizer().decode(list(probe.token_ids[1:])) == probe.text


@settings(deadline=None, max_examples=20)
@given(n_probes=st.integers(1, 4), max_tokens=st.integers(720, 2500), seed=st.integers(0, 10**6))
def test_a_probe_is_as_long_as_the_budget_allows_and_no_longer(n_probes: int, max_tokens: int, seed: int) -> None:
    tokenizer = tiny_text_tokenizer()
    longest = max(len(v.token_ids) for v in qualifying_values(sentences(), tokenizer))
    # The most one more pair in the object could cost: every character of the key a token, quotes, colon and comma.
    one_more = longest + 32 + 6
    for probe in built(n_probes=n_probes, max_tokens=max_tokens, seed=seed):
        assert len(probe.token_ids) <= max_tokens
        if probe.n_pairs > 4:
            assert len(probe.token_ids) > max_tokens - one_more


@settings(deadline=None, max_examples=10)
@given(n_probes=st.integers(1, 40), seed=st.integers(0, 1000))
def test_the_queried_position_is_spread_evenly_over_the_probes(n_probes: int, seed: int) -> None:
    probes = built(n_probes=n_probes, max_tokens=900, seed=seed)
    tenths = Counter[int]()
    for number, probe in enumerate(probes):
        depth = (number + 0.5) / n_probes
        assert probe.query_index <= depth * probe.n_pairs < probe.query_index + 1
        tenths[int(10 * depth)] += 1
    assert max(tenths.values()) - min(tenths[t] for t in range(10)) <= 1


def test_a_tight_budget_draws_shorter_sentences_rather_than_none() -> None:
    """Wherever the four shortest sentences fit, a probe is built, whatever the draw."""
    four = sorted(sentences(), key=lambda s: len(tiny_text_tokenizer().encode(s)))[:4]
    needed = max(len(p.token_ids) for p in built(n_probes=30, max_tokens=4096, corpus=tuple(four)))
    probes = built(n_probes=30, max_tokens=needed + 8)
    assert all(len(p.token_ids) <= needed + 8 for p in probes)
    assert len({value for p in probes for value in object_of(p).values()}) > 4


def test_equal_seeds_give_equal_probes_and_other_seeds_others() -> None:
    assert built(seed=5) == built(seed=5)
    assert built(seed=5) != built(seed=6)
    texts = [probe.text for probe in built(n_probes=8)]
    assert len(set(texts)) == 8


def test_the_digest_changes_with_tokens_spans_and_order() -> None:
    probes = built()
    assert probes_digest(probes) == probes_digest(built())
    first, *others = probes
    changed = [
        [*others, first],
        others,
        [replace(first, token_ids=(2, *first.token_ids[1:])), *others],
        [replace(first, span_start=first.span_start + 1), *others],
        [replace(first, answer_start=first.answer_start - 1), *others],
        [replace(first, answer_end=first.answer_end - 1), *others],
    ]
    assert len({probes_digest(p) for p in [probes, *changed]}) == 7


@pytest.mark.parametrize(
    ("sentence", "why"),
    [
        ("Too old.", "7 tokens or fewer"),
        (" ".join(sentences()[:4]), "more than 40 tokens"),
        ("The old keeper painted seven maps\nbeside the road on day 3.", "a line break"),
        ("The old keeper painted seven maps\u2028beside the road on day 3.", "a line separator"),
        ('The old keeper said "seven maps" beside the road.', "JSON would escape the quotes"),
        ("The old keeper painted C:\\maps beside the road on day 3.", "JSON would escape the backslash"),
        ("The old keeper painted\tseven maps beside the road.", "JSON would escape the tab"),
    ],
)
def test_only_plain_sentences_of_8_to_40_tokens_qualify(sentence: str, why: str) -> None:
    good = sentences()[0]
    assert [v.text for v in qualifying_values([sentence, good], tiny_text_tokenizer())] == [good], why


def test_the_bounds_of_a_value_are_8_and_40_tokens_inclusive() -> None:
    tokenizer = tiny_text_tokenizer()

    def of(n_tokens: int) -> str:
        text = "Z" * n_tokens
        assert len(tokenizer.encode(text)) == n_tokens
        return text

    found = qualifying_values([of(n) for n in (7, 8, 40, 41)], tokenizer)
    assert [len(v.token_ids) for v in found] == [8, 40]


def test_repeated_sentences_qualify_once_in_the_order_given() -> None:
    a, b, c = sentences()[:3]
    assert [v.text for v in qualifying_values([b, a, b, c, a], tiny_text_tokenizer())] == [b, a, c]
    assert qualifying_values([], tiny_text_tokenizer()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_probes": 0}, "n_probes must be at least 1, is 0"),
        ({"corpus": ("too short", *sentences()[:3])}, "only 3 of 4 sentences qualify"),
        ({"max_tokens": 200}, "^200 tokens have no room"),
    ],
)
def test_impossible_probes_are_refused_with_the_reason(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(**arguments)
