"""Computation of the exact cut of every domain, in memory that does not grow with the corpus.

Nor does it depend on how the scores are spread. Scores are counted in bins of their float64 bit pattern read as an
integer: an order that needs no range, so neither outliers nor a narrow range blur it. The bin in which a domain reaches
its target is looked at again in finer bins, until few documents are left in it or all of them have one score. Where
many have one score, they are counted in bins of their doc_id's bytes, past what all of them begin with, and so on. Only
the few that are left in the end are sorted. Every pass is one scan for all domains and all their targets, and reads
little where few scores are in question. Targets that are reached in one bin are looked for in it together.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, groupby, pairwise, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.selection.stretches import COARSE_BIN, COUNTED, Bound, domain_places, stretch_of

if TYPE_CHECKING:
    import duckdb

__all__ = ["Cut", "Target", "find_cuts", "find_many_cuts", "ordinal_of"]
_ID_BYTES = 2  # of a doc_id in a pass by doc_id: at most some 65,536 bins
_FEW = 200_000  # documents of a domain that may be sorted without a finer pass, for all its targets together
_BY_SCORE = "ordinal >> shift"
_BY_ID = f"encode(doc_id)[skip + 1 : skip + {_ID_BYTES}]"
_BINS_BITS = 12  # a pass by score splits what is in question into some 4,096


_COLUMNS = "domain, doc_id, n_tokens, score"


class Target(NamedTuple):
    """What a cut is looked for: a fraction of each domain, of its documents or of its tokens."""

    fraction: Fraction
    by_tokens: bool

    @classmethod
    def of(cls, fraction: float, *, by_tokens: bool) -> Target:
        """The fraction as the decimal it is written as: 0.07 of 100 documents is 7."""
        return cls(Fraction(str(fraction)), by_tokens)


@dataclass(frozen=True)
class Cut:
    """The last document selected in a domain, and how many documents and tokens are selected with it."""

    domain: str
    score: float
    doc_id: str
    n_documents: int  # with a finite score
    n_selected: int
    tokens_total: int
    tokens_selected: int


class Amount(NamedTuple):
    """A number of documents and a number of tokens."""

    documents: int
    tokens: int


@dataclass(frozen=True)
class Question:
    """The range of documents, in descending order, among which the cut of a domain must be; narrowed pass by pass.

    Documents are ordered by (score, doc_id). An ordinal is a score's bit pattern read as an integer.
    """

    whole: Amount  # the domain
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
    def one_score(self) -> bool:
        """Whether all documents in question have one score."""
        return self.low == self.high

    @property
    def one_id(self) -> bool:
        """Whether all documents in question have one doc_id."""
        return self.first_id is not None and self.first_id == self.last_id


_Asked = tuple[str, Target]  # of a domain


def find_cuts(
    connection: duckdb.DuckDBPyConnection, fingerprint: str, fraction: float, *, by_tokens: bool
) -> list[Cut]:
    """The cuts of all domains in the view `scores`, by domain. Raises as `find_many_cuts` does."""
    target = Target.of(fraction, by_tokens=by_tokens)
    return find_many_cuts(connection, fingerprint, [target])[target]


def find_many_cuts(
    connection: duckdb.DuckDBPyConnection, fingerprint: str, targets: Sequence[Target]
) -> dict[Target, list[Cut]]:
    """The cuts of all domains in the view `scores` for each target, by domain.

    Raises ValueError for a counted document without tokens, and for one that occurs again right after a cut.
    """
    params = {"fingerprint": fingerprint}
    few = max(1, _FEW // len(targets))
    questions = _begin(connection, params, targets)
    while many := {asked: one for asked, one in questions.items() if one.inside > few and not one.one_score}:
        questions |= _narrow(connection, params, many, _BY_SCORE)
    while many := {asked: one for asked, one in questions.items() if one.inside > few and not one.one_id}:
        questions |= _narrow(connection, params, many, _BY_ID)
    found = _finish(connection, params, questions) if questions else {}
    return {target: [found[asked] for asked in sorted(found) if asked[1] == target] for target in targets}


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


def _begin(
    connection: duckdb.DuckDBPyConnection, params: dict[str, str], targets: Sequence[Target]
) -> dict[_Asked, Question]:
    """Of every domain, the coarse bins of scores that hold its cuts."""
    bins = connection.sql(
        f"""
        SELECT domain, {COARSE_BIN} AS bin, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens,
               min(n_tokens) AS fewest, min(ordinal) AS low, max(ordinal) AS high,
               NULL::VARCHAR AS first_id, NULL::VARCHAR AS last_id
        FROM {COUNTED.format(columns=_COLUMNS, among="")} GROUP BY ALL ORDER BY domain, bin DESC
        """,
        params=params,
    ).to_arrow_reader()
    questions = {}
    for domain, rows in _runs([bins.read_all().combine_chunks()], by="domain"):
        if pc.min(rows["fewest"]).as_py() < 1:
            raise ValueError(f"scores: domain {domain!r} has a document with a score but without tokens")
        whole = Amount(pc.sum(rows["documents"]).as_py(), pc.sum(rows["tokens"]).as_py())
        low, high = pc.min(rows["low"]).as_py(), pc.max(rows["high"]).as_py()
        for target in targets:
            fraction, total = target.fraction, whole.tokens if target.by_tokens else whole.documents
            down_to = -(-fraction.numerator * total // fraction.denominator)  # rounded up
            everything = Question(
                whole, down_to, target.by_tokens, Amount(0, 0), whole.documents, low, high, None, None
            )
            questions[domain, target] = narrowed(everything, rows)
    return questions


def _narrow(
    connection: duckdb.DuckDBPyConnection, params: dict[str, str], questions: Mapping[_Asked, Question], by: str
) -> dict[_Asked, Question]:
    """The questions narrowed to one of the bins that the expression `by` gives, which are in the order of documents."""
    stretches = _stretches(questions)
    relation, bounds = _in_question(stretches)
    bins = connection.sql(
        f"""
        SELECT number, {by} AS bin, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens,
               min(ordinal) AS low, max(ordinal) AS high, min(doc_id) AS first_id, max(doc_id) AS last_id
        FROM {relation} GROUP BY ALL ORDER BY number, bin DESC
        """,
        params=params | bounds,
    ).to_arrow_reader()
    runs = _runs([bins.read_all().combine_chunks()], by="number")
    return {asked: narrowed(questions[asked], rows) for number, rows in runs for asked in stretches[number].asked}


def _finish(
    connection: duckdb.DuckDBPyConnection, params: dict[str, str], questions: Mapping[_Asked, Question]
) -> dict[_Asked, Cut]:
    """The cuts, by sorting the documents still in question."""
    stretches = _stretches(questions)
    relation, bounds = _in_question(stretches)
    documents = connection.sql(
        f"SELECT number, score, doc_id, n_tokens FROM {relation} ORDER BY number, ordinal DESC, doc_id DESC",
        params=params | bounds,
    ).to_arrow_reader(65_536)
    return {
        asked: cut
        for number, pieces in groupby(_runs(documents, by="number"), key=itemgetter(0))
        for asked, cut in _cuts({asked: questions[asked] for asked in stretches[number].asked}, pieces)
    }


def _cuts(
    questions: Mapping[_Asked, Question], pieces: Iterable[tuple[int, pa.RecordBatch]]
) -> Iterator[tuple[_Asked, Cut]]:
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
            yield asked, _cut(asked[0], question, last, after, before)
            del pending[asked]
        above = Amount(above.documents + len(tokens), above.tokens + int(tokens.sum()))
    assert not pending, "what is in question holds the cuts"


def _cut(domain: str, question: Question, last: pa.RecordBatch, after: pa.RecordBatch | None, before: Amount) -> Cut:
    """The cut whose last document is that row. Raises ValueError if the row after it is the same document."""
    score, doc_id = last["score"][0].as_py(), last["doc_id"][0].as_py()
    if after is not None and (after["score"][0].as_py(), after["doc_id"][0].as_py()) == (score, doc_id):
        raise ValueError(f"scores: document {doc_id!r} of domain {domain!r} occurs more than once")
    return Cut(
        domain=domain,
        score=score + 0.0,  # one zero
        doc_id=doc_id,
        n_documents=question.whole.documents,
        n_selected=before.documents + 1,
        tokens_total=question.whole.tokens,
        tokens_selected=before.tokens + last["n_tokens"][0].as_py(),
    )


class _Stretch(NamedTuple):
    """Documents of a domain that are in question, and for which targets they are."""

    domain: str
    question: Question  # any of them
    asked: list[_Asked]


def _stretches(questions: Mapping[_Asked, Question]) -> list[_Stretch]:
    """Two questions are about the same documents, or have none in common: a bin is divided alike for both."""
    stretches: dict[tuple[str, int], _Stretch] = {}
    for asked, one in sorted(questions.items(), key=lambda item: (item[0][0], item[1].above.documents)):
        stretches.setdefault((asked[0], one.above.documents), _Stretch(asked[0], one, [])).asked.append(asked)
    return list(stretches.values())


def _in_question(stretches: Sequence[_Stretch]) -> tuple[str, dict[str, Any]]:
    """The documents still in question with the `number` of their stretch, its `shift` and `skip`, as a relation and its
    parameters."""
    domains = list(dict.fromkeys(stretch.domain for stretch in stretches))
    places, params = domain_places(domains)
    bounds: list[list[Bound]] = [[] for _ in domains]
    values: list[list[str]] = [[] for _ in domains]
    for number, (domain, one, _) in enumerate(stretches):
        place, by_id = domains.index(domain), one.one_score and one.first_id is not None
        within = f"ordinal BETWEEN {one.low}::BIGINT AND {one.high}::BIGINT"
        if by_id:
            within += f" AND doc_id BETWEEN $first_{number} AND $last_{number}"
            params |= {f"first_{number}": str(one.first_id), f"last_{number}": str(one.last_id)}
        bounds[place].append(Bound(one.low, one.first_id if by_id else None))
        values[place].append(f"CASE WHEN {within} THEN {number} END")
    number_of, of_bounds = stretch_of(bounds, [[*of_domain, "NULL"] for of_domain in values])
    coarse = {(place, bound.coarse_bin) for place, of_domain in enumerate(bounds) for bound in of_domain}
    # said again for all together, as what a scan can skip row groups by
    lowest, highest = min(one.low for _, one, _ in stretches), max(one.high for _, one, _ in stretches)
    params |= of_bounds | {"lowest": _score(lowest), "highest": _score(highest)}
    counted = COUNTED.format(columns=_COLUMNS, among="AND score BETWEEN $lowest AND $highest")
    asked = ", ".join(f"({number}, {one.shift}, {one.skip})" for number, (_, one, _) in enumerate(stretches))
    relation = f"""
        (SELECT *, {number_of} AS number FROM {counted} AS counted JOIN {places} USING (domain)
         JOIN (VALUES {", ".join(map(str, sorted(coarse)))}) AS coarse(of_place, bin)
         ON place = of_place AND {COARSE_BIN} = bin) AS placed
        JOIN (VALUES {asked}) AS asked(number, shift, skip) USING (number)
    """
    return relation, params


def ordinal_of(score: float) -> int:
    """The score's bits as an integer that orders as scores do."""
    (bits,) = struct.unpack("<q", struct.pack("<d", score))
    return int(bits) if bits >= 0 else -(2**63) - int(bits)


def _score(ordinal: int) -> float:
    """The score with that ordinal."""
    (score,) = struct.unpack("<d", struct.pack("<q", ordinal if ordinal >= 0 else -(2**63) - ordinal))
    return float(score)


def _runs(batches: Iterable[pa.RecordBatch | pa.Table], *, by: str) -> Iterator[tuple[Any, Any]]:
    """The rows of each value of the column `by`, in pieces, from batches ordered by it."""
    for batch in batches:
        values = batch[by]
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        begin = 0
        for run in pc.run_end_encode(values).run_ends.to_pylist() if len(values) else []:
            yield values[begin].as_py(), batch.slice(begin, run - begin)
            begin = run


def _numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy())
