"""Probes: synthetic key-passage retrieval prompts whose answer can only come from the context (arXiv 2505.07293).

A probe is an instruction, a JSON object of `n_pairs` keys and sentences, three demonstrations, a query key and its
answer. Pieces are tokenized separately and their ids concatenated, so a value has the same tokens wherever it stands
and spans are exact.
"""

import hashlib
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads transformers, and probes are read where nothing is tokenized
    from attninf_assets.influence.model.text_tokenizer import TextTokenizer

N_DEMONSTRATIONS = 3
MIN_VALUE_TOKENS, MAX_VALUE_TOKENS = 8, 40
_KEY_LENGTH = 32
_INSTRUCTION = (
    "The JSON object below maps keys to sentences. For each key that follows, copy its sentence exactly.\n\n{"
)


class ProbeTooLongError(ValueError):
    """The tokens allowed are too few for even the smallest probe."""


@dataclass(frozen=True)
class Probe:
    """A retrieval prompt as tokens, its start token first; all fields that are positions count its tokens from 0."""

    text: str
    token_ids: tuple[int, ...]
    answer_start: int
    answer_end: int  # one past the answer's last token
    span_start: int  # where the answer's sentence stands inside the JSON object
    n_pairs: int
    query_index: int  # position of the queried pair in the object

    @property
    def answer_length(self) -> int:
        """The number of the answer's tokens."""
        return self.answer_end - self.answer_start

    @property
    def span_end(self) -> int:
        """One past the last token of the answer's sentence inside the JSON object."""
        return self.span_start + self.answer_length


@dataclass(frozen=True)
class _Value:
    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class _Pair:
    key: str
    key_in_object: tuple[int, ...]
    key_in_question: tuple[int, ...]
    value: _Value


def build_probes(
    sentences: Sequence[str], tokenizer: "TextTokenizer", *, start_token: int, n_probes: int, max_tokens: int, seed: int
) -> list[Probe]:
    """Build `n_probes` probes of at most `max_tokens` tokens each, answer and start token included, from `seed`.

    A sentence qualifies as a value if it has 8 to 40 tokens, no line break and nothing JSON would have to escape. The
    queried pair's depth is spread evenly over the probes. Equal arguments give equal probes. Raises `ValueError` where
    too few sentences qualify, and `ProbeTooLongError` where not even the smallest probe fits into the tokens allowed.
    """
    if n_probes < 1:
        raise ValueError(f"n_probes must be at least 1, is {n_probes}")
    values = qualifying_values(sentences, tokenizer)
    if len(values) <= N_DEMONSTRATIONS:
        raise ValueError(
            f"only {len(values)} of {len(sentences)} sentences qualify as probe values "
            f"({MIN_VALUE_TOKENS} to {MAX_VALUE_TOKENS} tokens, no line break, no quote or backslash); "
            f"{N_DEMONSTRATIONS + 1} are needed: give the corpus more prose"
        )
    return [
        _build_probe(
            values,
            tokenizer,
            start_token=start_token,
            max_tokens=max_tokens,
            depth=(number + 0.5) / n_probes,
            random_=random.Random(f"attninf probe {seed} {number}"),  # noqa: S311
        )
        for number in range(n_probes)
    ]


def qualifying_values(sentences: Sequence[str], tokenizer: "TextTokenizer") -> list[_Value]:
    """The distinct sentences that may serve as values, with their tokens, in the order given."""
    plain = [s for s in dict.fromkeys(sentences) if s.isprintable() and not set(s) & {'"', "\\"}]
    encoded = tokenizer.encode_batch(plain)
    values = [_Value(text, tuple(ids)) for text, ids in zip(plain, encoded, strict=True)]
    by_tokens = {v.token_ids: v for v in reversed(values)}  # two texts may share their tokens: keep the first
    return [
        v for v in values if MIN_VALUE_TOKENS <= len(v.token_ids) <= MAX_VALUE_TOKENS and by_tokens[v.token_ids] is v
    ]


def _build_probe(
    values: Sequence[_Value],
    tokenizer: "TextTokenizer",
    *,
    start_token: int,
    max_tokens: int,
    depth: float,
    random_: random.Random,
) -> Probe:
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text))

    closing, comma = encode('"'), encode(", ")
    end_of_object, end_of_answer = encode("}\n"), encode('"\n')
    around = 1 + len(encode(_INSTRUCTION)) + len(end_of_object)
    candidates = values
    draw = partial(
        _draw_pairs,
        encode=encode,
        room=max_tokens - around,
        ends=(len(closing) + len(comma), len(end_of_answer)),
        random_=random_,
    )
    while len(pairs := draw(candidates)) <= N_DEMONSTRATIONS:
        if len(candidates) == N_DEMONSTRATIONS + 1:
            raise ProbeTooLongError(
                f"{max_tokens} tokens have no room for a probe with {N_DEMONSTRATIONS} demonstrations and a query, "
                "even of the shortest sentences; 512 are usually enough"
            )
        # Long sentences came first and left no room: draw again from the shorter half.
        n_shorter = max(N_DEMONSTRATIONS + 1, len(candidates) // 2)
        candidates = sorted(candidates, key=lambda value: len(value.token_ids))[:n_shorter]

    # The first pair is the query, the next three are demonstrated; everyone else stands around them.
    others = random_.sample(range(1, len(pairs)), len(pairs) - 1)
    query_index = int(depth * len(pairs))
    arrangement = [*others[:query_index], 0, *others[query_index:]]

    ids: list[int] = [start_token]
    text: list[str] = []

    def write(piece: str, piece_ids: Sequence[int] | None = None) -> int:
        start = len(ids)
        ids.extend(encode(piece) if piece_ids is None else piece_ids)
        text.append(piece)
        return start

    write(_INSTRUCTION)
    span_start = -1
    for place, index in enumerate(arrangement):
        if place:
            write(", ", comma)
        pair = pairs[index]
        write(f'"{pair.key}": "', pair.key_in_object)
        start = write(pair.value.text, pair.value.token_ids)
        if index == 0:
            span_start = start
        write('"', closing)
    write("}\n", end_of_object)
    for index in (*range(1, N_DEMONSTRATIONS + 1), 0):
        pair = pairs[index]
        write(f'\nKey: "{pair.key}"\nValue: "', pair.key_in_question)
        answer_start = write(pair.value.text, pair.value.token_ids)
        if index:
            write('"\n', end_of_answer)
    assert len(ids) <= max_tokens
    return Probe(
        text="".join(text),
        token_ids=tuple(ids),
        answer_start=answer_start,
        answer_end=len(ids),
        span_start=span_start,
        n_pairs=len(pairs),
        query_index=query_index,
    )


def _draw_pairs(
    candidates: Sequence[_Value],
    encode: Callable[[str], tuple[int, ...]],
    *,
    room: int,
    ends: tuple[int, int],
    random_: random.Random,
) -> list[_Pair]:
    """As many pairs as fit into `room` tokens, values drawn at random; `ends` is what closes a value in either place.

    The first pairs, the query and the demonstrated ones, stand in a question, too. Fewer than those may fit.
    """
    pairs: list[_Pair] = []
    used = 0
    shortest = min(len(value.token_ids) for value in candidates)
    key, in_object, in_question = _draw_key(random_, encode)
    for value in random_.sample(candidates, len(candidates)):
        overhead, times = len(in_object) + ends[0], 1
        if len(pairs) <= N_DEMONSTRATIONS:
            overhead, times = overhead + len(in_question) + ends[1], 2
        if used + overhead + times * shortest > room:
            break
        if used + overhead + times * len(value.token_ids) > room:
            continue
        used += overhead + times * len(value.token_ids)
        pairs.append(_Pair(key, in_object, in_question, value))
        key, in_object, in_question = _draw_key(random_, encode)
    return pairs


def _draw_key(
    random_: random.Random, encode: Callable[[str], tuple[int, ...]]
) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """A `hash_key`, with its tokens where it stands in the object and where it stands in a question."""
    key = "".join(random_.choices(string.ascii_letters + string.digits, k=_KEY_LENGTH))
    return key, encode(f'"{key}": "'), encode(f'\nKey: "{key}"\nValue: "')


def probes_digest(probes: Sequence[Probe]) -> str:
    """sha256 over the probes' tokens and spans: equal digests are equal probes."""
    digest = hashlib.sha256()
    for p in probes:
        digest.update(repr((p.token_ids, p.answer_start, p.answer_end, p.span_start)).encode())
    return digest.hexdigest()
