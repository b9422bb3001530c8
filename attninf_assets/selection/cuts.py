"""Computation of the exact cut of every domain, in memory that does not grow with the corpus.

Nor does it depend on how the scores are spread. Scores are counted in bins of their float64 bit pattern read as an
integer: an order that needs no range, so neither outliers nor a narrow range blur it. The bin in which a domain reaches
its target is looked at again in finer bins, until few documents are left in it or all of them have one score. Where
many have one score, they are counted in bins of their doc_id's bytes, past what all of them begin with, and so on. Only
the few that are left in the end are sorted. Every pass is one scan for all domains, and reads little where few scores
are in question.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import duckdb

__all__ = ["Cut", "find_cuts"]
_FIRST_SHIFT = 44  # 256 bins per power of two: some thousand bins for the scores of a domain
_ID_BYTES = 2  # of a doc_id in a pass by doc_id: at most some 65,536 bins
_FEW = 200_000  # documents of a domain that may be sorted without a finer pass
_BY_SCORE = "ordinal >> shift"
_BY_ID = f"encode(doc_id)[skip + 1 : skip + {_ID_BYTES}]"
# `ordinal`: the bits of the score as an integer that orders as the score does, 0 for both zeros.
_COUNTED = """(
    SELECT domain, doc_id, n_tokens, score,
           CASE WHEN bits >= 0 THEN bits ELSE -9223372036854775808 - bits END AS ordinal
    FROM (SELECT *, score::BIT::BIGINT AS bits FROM scores
          WHERE selector_fingerprint = $fingerprint AND isfinite(score) {among})
)"""
_BINS_BITS = 12  # a pass by score splits what is in question into some 4,096


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


def find_cuts(
    connection: duckdb.DuckDBPyConnection, fingerprint: str, fraction: float, *, by_tokens: bool
) -> list[Cut]:
    """The cuts of all domains in the view `scores`, by domain.

    Raises ValueError for a counted document without tokens, and for one that occurs again right after a cut.
    """
    params = {"fingerprint": fingerprint}
    questions = _begin(connection, params, Fraction(str(fraction)), by_tokens=by_tokens)
    while many := {name: one for name, one in questions.items() if one.inside > _FEW and not one.one_score}:
        questions |= _narrow(connection, params, many, _BY_SCORE)
    while many := {name: one for name, one in questions.items() if one.inside > _FEW and not one.one_id}:
        questions |= _narrow(connection, params, many, _BY_ID)
    return _finish(connection, params, questions) if questions else []


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
    connection: duckdb.DuckDBPyConnection, params: dict[str, str], fraction: Fraction, *, by_tokens: bool
) -> dict[str, Question]:
    """Of every domain, the coarse bin of scores that holds its cut."""
    bins = connection.sql(
        f"""
        SELECT domain, ordinal >> {_FIRST_SHIFT} AS bin, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens,
               min(n_tokens) AS fewest, min(ordinal) AS low, max(ordinal) AS high,
               NULL::VARCHAR AS first_id, NULL::VARCHAR AS last_id
        FROM {_COUNTED.format(among="")} GROUP BY ALL ORDER BY domain, bin DESC
        """,
        params=params,
    ).to_arrow_reader()
    questions = {}
    for domain, rows in _runs([bins.read_all().combine_chunks()]):
        if pc.min(rows["fewest"]).as_py() < 1:
            raise ValueError(f"scores: domain {domain!r} has a document with a score but without tokens")
        whole = Amount(pc.sum(rows["documents"]).as_py(), pc.sum(rows["tokens"]).as_py())
        total = whole.tokens if by_tokens else whole.documents
        target = -(-fraction.numerator * total // fraction.denominator)  # rounded up
        low, high = pc.min(rows["low"]).as_py(), pc.max(rows["high"]).as_py()
        everything = Question(whole, target, by_tokens, Amount(0, 0), whole.documents, low, high, None, None)
        questions[domain] = narrowed(everything, rows)
    return questions


def _narrow(
    connection: duckdb.DuckDBPyConnection, params: dict[str, str], questions: Mapping[str, Question], by: str
) -> dict[str, Question]:
    """The questions narrowed to one of the bins that the expression `by` gives, which are in the order of documents."""
    relation, bounds = _in_question(questions)
    bins = connection.sql(
        f"""
        SELECT domain, {by} AS bin, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens,
               min(ordinal) AS low, max(ordinal) AS high, min(doc_id) AS first_id, max(doc_id) AS last_id
        FROM {relation} GROUP BY ALL ORDER BY domain, bin DESC
        """,
        params=params | bounds,
    ).to_arrow_reader()
    runs = _runs([bins.read_all().combine_chunks()])
    return {domain: narrowed(questions[domain], rows) for domain, rows in runs}


def _finish(
    connection: duckdb.DuckDBPyConnection, params: dict[str, str], questions: Mapping[str, Question]
) -> list[Cut]:
    """The cuts, by sorting the documents still in question."""
    relation, bounds = _in_question(questions)
    documents = connection.sql(
        f"SELECT domain, score, doc_id, n_tokens FROM {relation} ORDER BY domain, ordinal DESC, doc_id DESC",
        params=params | bounds,
    ).to_arrow_reader(65_536)
    return [
        _cut(domain, questions[domain], (rows for _, rows in pieces))
        for domain, pieces in groupby(_runs(documents), key=itemgetter(0))
    ]


def _cut(domain: str, question: Question, pieces: Iterator[pa.RecordBatch]) -> Cut:
    """The cut among the documents in question, in descending order. Raises ValueError if the next one is the same."""
    above = question.above
    for rows in pieces:
        tokens = _numbers(rows["n_tokens"])
        index, above = _reached(question, above, np.ones(len(tokens), dtype=np.int64), tokens)
        if index is None:
            continue
        score, doc_id = rows["score"][index].as_py(), rows["doc_id"][index].as_py()
        following = rows.slice(index + 1, 1) if index + 1 < len(tokens) else next(pieces, None)
        if following is not None and (following["score"][0].as_py(), following["doc_id"][0].as_py()) == (score, doc_id):
            raise ValueError(f"scores: document {doc_id!r} of domain {domain!r} occurs more than once")
        return Cut(
            domain=domain,
            score=score + 0.0,  # one zero
            doc_id=doc_id,
            n_documents=question.whole.documents,
            n_selected=above.documents + 1,
            tokens_total=question.whole.tokens,
            tokens_selected=above.tokens + int(tokens[index]),
        )
    raise AssertionError("what is in question holds the cut")


def _in_question(questions: Mapping[str, Question]) -> tuple[str, dict[str, Any]]:
    """The documents still in question with each domain's `shift` and `skip`, as a relation and its parameters."""
    rows: list[str] = []
    bounds: dict[str, Any] = {}
    for number, (domain, one) in enumerate(questions.items()):
        names = [f"domain_{number}", f"first_{number}", f"last_{number}"]
        bounds |= dict(zip(names, (domain, one.first_id, one.last_id), strict=True))
        texts = ", ".join(f"${name}::VARCHAR" for name in names)
        rows.append(f"({texts}, {one.low}::BIGINT, {one.high}::BIGINT, {one.shift}, {one.skip})")
    # said again for all domains together, as what a scan can skip row groups by
    lowest, highest = min(one.low for one in questions.values()), max(one.high for one in questions.values())
    bounds |= {"lowest": _score(lowest), "highest": _score(highest)}
    relation = f"""
        {_COUNTED.format(among="AND score BETWEEN $lowest AND $highest")} AS counted
        JOIN (VALUES {", ".join(rows)}) AS asked(domain, first_id, last_id, low, high, shift, skip) USING (domain)
        WHERE ordinal BETWEEN low AND high AND (first_id IS NULL OR doc_id BETWEEN first_id AND last_id)
    """
    return relation, bounds


def _score(ordinal: int) -> float:
    """The score with that ordinal."""
    (score,) = struct.unpack("<d", struct.pack("<q", ordinal if ordinal >= 0 else -(2**63) - ordinal))
    return float(score)


def _runs(batches: Iterable[pa.RecordBatch | pa.Table]) -> Iterator[tuple[str, pa.RecordBatch | pa.Table]]:
    """The rows of each domain, in pieces, from batches ordered by domain."""
    for batch in batches:
        domains = batch["domain"]
        if isinstance(domains, pa.ChunkedArray):
            domains = domains.combine_chunks()
        begin = 0
        for run in pc.run_end_encode(domains).run_ends.to_pylist() if len(domains) else []:
            yield domains[begin].as_py(), batch.slice(begin, run - begin)
            begin = run


def _numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy())
