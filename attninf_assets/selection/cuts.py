"""Computation of exact cuts through ranked documents, in memory that does not grow with the corpus.

Nor does it depend on how the keys are spread by which documents are ranked. Keys are counted in bins of their float64
bit pattern read as an integer: an order that needs no range, so neither outliers nor a narrow range blur it. The bin in
which a part reaches its target is looked at again in finer bins, until few documents are left in it or all of them have
one key. Where many have one key, they are counted in bins of their doc_id's bytes, past what all of them begin with,
and so on. Only the few that are left in the end are sorted. Every pass is one scan for all cuts, and reads little where
few keys are in question and the key is a stored column.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, pairwise, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.selection.stretches import COARSE_BIN, Bound, stretch_of

if TYPE_CHECKING:
    import duckdb

__all__ = ["Amount", "Cut", "Part", "Ranking", "Wanted", "find_cuts"]
_ID_BYTES = 2  # of a doc_id in a pass by doc_id: at most some 65,536 bins
_FEW = 200_000  # documents in question for one cut that may be sorted without a finer pass
_BY_KEY = "ordinal >> shift"
_BY_ID = f"encode(doc_id)[skip + 1 : skip + {_ID_BYTES}]"
# `ordinal`: the bits of the key as an integer that orders as the key does, 0 for both zeros.
_COUNTED = """(
    SELECT domain, part, doc_id, n_tokens, key,
           CASE WHEN bits >= 0 THEN bits ELSE -9223372036854775808 - bits END AS ordinal
    FROM (SELECT *, key::BIT::BIGINT AS bits FROM {rows} WHERE isfinite(key) {among})
)"""
_BINS_BITS = 12  # a pass by key splits what is in question into some 4,096


class Part(NamedTuple):
    """What is cut by itself: a domain, or one of its parts, as a band of lengths is."""

    domain: str
    number: int = 0


class Amount(NamedTuple):
    """A number of documents and a number of tokens."""

    documents: int
    tokens: int


@dataclass(frozen=True)
class Ranking:
    """Documents to be ranked: a SQL relation of domain, part (a number), doc_id, n_tokens and key, a float64 by which
    they are ordered, highest first; equal keys by doc_id. Documents whose key is null or not finite do not count."""

    rows: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """How far down a part a cut is to be: at the document with which that many documents or tokens are reached."""

    part: Part
    target: int  # at least 1
    by_tokens: bool


@dataclass(frozen=True)
class Cut:
    """The last document above a cut, and how many documents and tokens there are down to it."""

    part: Part
    key: float
    doc_id: str
    kept: Amount
    last_tokens: int  # of that document
    target: int  # that was wanted
    by_tokens: bool


@dataclass(frozen=True)
class Question:
    """The range of documents, in descending order, among which the cut of a domain must be; narrowed pass by pass.

    Documents are ordered by (key, doc_id). An ordinal is a key's bit pattern read as an integer.
    """

    part: Part
    target: int  # documents or tokens down to the cut, the last document included
    by_tokens: bool
    above: Amount  # what comes before the documents in question
    inside: int  # documents in question
    low: int  # lowest and highest ordinal in question
    high: int
    first_id: str | None  # least and greatest doc_id in question, None while unknown
    last_id: str | None

    @property
    def shift(self) -> int:
        """The number of low bits that are dropped from an ordinal to make the number of its bin."""
        return max(0, (self.high - self.low).bit_length() - _BINS_BITS)

    @property
    def skip(self) -> int:
        """The number of bytes with which every doc_id in question begins."""
        if self.first_id is None or self.last_id is None:
            return 0
        pairs = zip(self.first_id.encode(), self.last_id.encode(), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    @property
    def one_key(self) -> bool:
        """Whether all documents in question have one key."""
        return self.low == self.high

    @property
    def one_id(self) -> bool:
        """Whether all documents in question have one doc_id."""
        return self.first_id is not None and self.first_id == self.last_id


def find_cuts(
    connection: duckdb.DuckDBPyConnection,
    ranking: Ranking,
    wanted: Callable[[Mapping[Part, Amount]], Sequence[Wanted]],
) -> tuple[dict[Part, Amount], list[Cut]]:
    """The ranked documents and tokens of every part, and the cuts that `wanted` asks for when it is told of them.

    Raises ValueError for a counted document without tokens, and for one that occurs again right after a cut.
    """
    bins = _first_bins(connection, ranking)
    parts = {part: _whole(part, rows) for part, rows in bins.items()}
    questions = {
        number: _begin(one, parts[one.part], bins[one.part]) for number, one in enumerate(wanted(parts), start=1)
    }
    few = max(1, _FEW // max(1, -(-len(questions) // max(1, len(parts)))))
    while many := {name: one for name, one in questions.items() if one.inside > few and not one.one_key}:
        questions |= _narrow(connection, ranking, many, _BY_KEY)
    while many := {name: one for name, one in questions.items() if one.inside > few and not one.one_id}:
        questions |= _narrow(connection, ranking, many, _BY_ID)
    return parts, _finish(connection, ranking, questions) if questions else []


def narrowed(question: Question, bins: pa.Table) -> Question:
    """The question narrowed to one bin: the one in which the target is reached.

    `bins` divide all that is in question, in descending order; columns documents, tokens, low, high, first_id, last_id.
    """
    index, above = _reached(question, question.above, _numbers(bins["documents"]), _numbers(bins["tokens"]))
    assert index is not None, "what is in question holds the cut"
    inside, low, high, first_id, last_id = (
        bins[name][index].as_py() for name in ("documents", "low", "high", "first_id", "last_id")
    )
    return replace(question, above=above, inside=inside, low=low, high=high, first_id=first_id, last_id=last_id)


def _reached(question: Question, above: Amount, documents: np.ndarray, tokens: np.ndarray) -> tuple[int | None, Amount]:
    """Which item the target is reached in, None if beyond all, and what comes before that item.

    `above` is what comes before all items; `documents` and `tokens`, int64, what each holds, in descending order.
    """
    weights, passed = (tokens, above.tokens) if question.by_tokens else (documents, above.documents)
    index = int(np.searchsorted(np.cumsum(weights), question.target - passed))
    before = Amount(above.documents + int(documents[:index].sum()), above.tokens + int(tokens[:index].sum()))
    return index if index < len(weights) else None, before


def _first_bins(connection: duckdb.DuckDBPyConnection, ranking: Ranking) -> dict[Part, pa.Table]:
    """Of every part, its documents in coarse bins of keys, highest first."""
    bins = connection.sql(
        f"""
        SELECT domain, part, {COARSE_BIN} AS bin, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens,
               min(n_tokens) AS fewest, min(ordinal) AS low, max(ordinal) AS high,
               NULL::VARCHAR AS first_id, NULL::VARCHAR AS last_id
        FROM {_COUNTED.format(rows=ranking.rows, among="")} GROUP BY ALL ORDER BY domain, part, bin DESC
        """,
        params=dict(ranking.params),
    ).to_arrow_table()
    return {
        Part(domain, number): rows
        for domain, of_domain in _runs([bins.combine_chunks()], "domain")
        for number, rows in _runs([of_domain], "part")
    }


def _whole(part: Part, bins: pa.Table) -> Amount:
    if pc.min(bins["fewest"]).as_py() < 1:
        raise ValueError(f"scores: domain {part.domain!r} has a document with a score but without tokens")
    return Amount(pc.sum(bins["documents"]).as_py(), pc.sum(bins["tokens"]).as_py())


def _begin(wanted: Wanted, whole: Amount, bins: pa.Table) -> Question:
    """The question narrowed to the coarse bin that holds the cut."""
    assert 1 <= wanted.target <= (whole.tokens if wanted.by_tokens else whole.documents), wanted
    low, high = pc.min(bins["low"]).as_py(), pc.max(bins["high"]).as_py()
    everything = Question(
        wanted.part, wanted.target, wanted.by_tokens, Amount(0, 0), whole.documents, low, high, None, None
    )
    return narrowed(everything, bins)


def _narrow(
    connection: duckdb.DuckDBPyConnection, ranking: Ranking, questions: Mapping[int, Question], by: str
) -> dict[int, Question]:
    """The questions narrowed to one of the bins that the expression `by` gives, which are in the order of documents."""
    stretches = _stretches(questions)
    relation, params = _in_question(ranking, stretches)
    bins = connection.sql(
        f"""
        SELECT number, {by} AS bin, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens,
               min(ordinal) AS low, max(ordinal) AS high, min(doc_id) AS first_id, max(doc_id) AS last_id
        FROM {relation} GROUP BY ALL ORDER BY number, bin DESC
        """,
        params=params,
    ).to_arrow_table()
    runs = _runs([bins.combine_chunks()], "number")
    return {asked: narrowed(questions[asked], rows) for number, rows in runs for asked in stretches[number].asked}


def _finish(connection: duckdb.DuckDBPyConnection, ranking: Ranking, questions: Mapping[int, Question]) -> list[Cut]:
    """The cuts, by sorting the documents still in question."""
    stretches = _stretches(questions)
    relation, params = _in_question(ranking, stretches)
    documents = connection.sql(
        f"SELECT number, key, doc_id, n_tokens FROM {relation} ORDER BY number, ordinal DESC, doc_id DESC",
        params=params,
    ).to_arrow_reader(65_536)
    found = {
        asked: cut
        for number, pieces in groupby(_runs(documents, "number"), key=itemgetter(0))
        for asked, cut in _cuts({asked: questions[asked] for asked in stretches[number].asked}, pieces)
    }
    return [found[asked] for asked in questions]


def _cuts(questions: Mapping[int, Question], pieces: Iterable[tuple[int, pa.RecordBatch]]) -> Iterator[tuple[int, Cut]]:
    """The cuts of questions about the same documents, which come in descending order."""
    pending = dict(questions)
    above = next(iter(questions.values())).above
    for rows, following in pairwise(chain((rows for _, rows in pieces), [None])):
        tokens = _numbers(rows["n_tokens"])
        for asked, question in list(pending.items()):
            index, before = _reached(question, above, np.ones(len(tokens), dtype=np.int64), tokens)
            if index is None:
                continue
            last, after = rows.slice(index, 1), rows.slice(index + 1, 1) if index + 1 < len(tokens) else following
            yield asked, _cut(question, last, after, before)
            del pending[asked]
        above = Amount(above.documents + len(tokens), above.tokens + int(tokens.sum()))
    assert not pending, "what is in question holds the cuts"


def _cut(question: Question, last: pa.RecordBatch, after: pa.RecordBatch | None, before: Amount) -> Cut:
    """The cut whose last document is that row. Raises ValueError if the row after it is the same document."""
    key, doc_id = last["key"][0].as_py(), last["doc_id"][0].as_py()
    if after is not None and (after["key"][0].as_py(), after["doc_id"][0].as_py()) == (key, doc_id):
        raise ValueError(f"scores: document {doc_id!r} of domain {question.part.domain!r} occurs more than once")
    tokens = last["n_tokens"][0].as_py()
    kept = Amount(before.documents + 1, before.tokens + tokens)
    key += 0.0  # one zero
    return Cut(question.part, key, doc_id, kept, tokens, question.target, question.by_tokens)


class _Stretch(NamedTuple):
    """Documents of a part that are in question, and by which questions."""

    question: Question  # any of them
    asked: list[int]


def _stretches(questions: Mapping[int, Question]) -> list[_Stretch]:
    """Two questions are about the same documents, or have none in common: a bin is divided alike for both."""
    stretches: dict[tuple[Part, int], _Stretch] = {}
    for asked, one in sorted(questions.items(), key=lambda item: (item[1].part, item[1].above.documents)):
        stretches.setdefault((one.part, one.above.documents), _Stretch(one, [])).asked.append(asked)
    return list(stretches.values())


def _in_question(ranking: Ranking, stretches: Sequence[_Stretch]) -> tuple[str, dict[str, Any]]:
    """The documents still in question with the `number` of their stretch, its `shift` and `skip`, as a relation and its
    parameters."""
    parts = list(dict.fromkeys(stretch.question.part for stretch in stretches))
    params: dict[str, Any] = {f"domain_{place}": part.domain for place, part in enumerate(parts)}
    bounds: list[list[Bound]] = [[] for _ in parts]
    values: list[list[str]] = [[] for _ in parts]
    for number, (one, _) in enumerate(stretches):
        place, by_id = parts.index(one.part), one.one_key and one.first_id is not None
        within = f"ordinal BETWEEN {one.low}::BIGINT AND {one.high}::BIGINT"
        if by_id:
            within += f" AND doc_id BETWEEN $first_{number} AND $last_{number}"
            params |= {f"first_{number}": str(one.first_id), f"last_{number}": str(one.last_id)}
        bounds[place].append(Bound(one.low, one.first_id if by_id else None))
        values[place].append(f"CASE WHEN {within} THEN {number} END")
    number_of, of_bounds = stretch_of(bounds, [[*of_part, "NULL"] for of_part in values])
    places = ", ".join(f"($domain_{place}::VARCHAR, {part.number}, {place})" for place, part in enumerate(parts))
    coarse = {(place, bound.coarse_bin) for place, of_part in enumerate(bounds) for bound in of_part}
    asked = ", ".join(f"({number}, {one.shift}, {one.skip})" for number, (one, _) in enumerate(stretches))
    # said again for all together, as what a scan can skip row groups by
    lowest, highest = min(one.low for one, _ in stretches), max(one.high for one, _ in stretches)
    params |= of_bounds | {"lowest": _key(lowest), "highest": _key(highest)}
    relation = f"""
        (SELECT *, {number_of} AS number
         FROM {_COUNTED.format(rows=ranking.rows, among="AND key BETWEEN $lowest AND $highest")} AS counted
         JOIN (VALUES {places}) AS places(domain, part, place) USING (domain, part)
         JOIN (VALUES {", ".join(map(str, sorted(coarse)))}) AS coarse(of_place, bin)
         ON place = of_place AND {COARSE_BIN} = bin) AS placed
        JOIN (VALUES {asked}) AS asked(number, shift, skip) USING (number)
    """
    return relation, {**ranking.params, **params}


def _key(ordinal: int) -> float:
    """The key with that ordinal."""
    (key,) = struct.unpack("<d", struct.pack("<q", ordinal if ordinal >= 0 else -(2**63) - ordinal))
    return float(key)


def _runs(batches: Iterable[pa.RecordBatch | pa.Table], column: str) -> Iterator[tuple[Any, pa.RecordBatch | pa.Table]]:
    """The rows of each value of the column, in pieces, from batches ordered by it."""
    for batch in batches:
        values = batch[column]
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        begin = 0
        for run in pc.run_end_encode(values).run_ends.to_pylist() if len(values) else []:
            yield values[begin].as_py(), batch.slice(begin, run - begin)
            begin = run


def _numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy())
