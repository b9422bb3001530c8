"""The exact cut of every domain, in memory that depends on neither the documents nor how their scores are spread.

Scores are counted in bins of their float64 bit pattern read as an integer: an order that needs no range, so neither
outliers nor a narrow range blur it. The bin in which a domain reaches its target is looked at again in finer bins,
until few documents are left in it or all of them have one score. Only those are sorted, by DuckDB, which spills to
disk when a mass of ties makes even them many. Every pass is one scan for all domains.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.store.sql import literal

__all__ = ["Cut", "find_cuts"]

_FIRST_SHIFT = 44  # 256 bins per power of two: some thousand bins for the scores of a domain
_FINER_BY = 12  # bits: a further pass splits a bin into 4,096
_FEW = 200_000  # documents of a domain that may be sorted without a finer pass

# `ordinal`: the bits of the score as an integer that orders as the score does, 0 for both zeros.
_COUNTED = """(
    SELECT domain, doc_id, n_tokens, score,
           CASE WHEN bits >= 0 THEN bits ELSE -9223372036854775808 - bits END AS ordinal
    FROM (SELECT *, score::BIT::BIGINT AS bits FROM scores
          WHERE selector_fingerprint = $fingerprint AND isfinite(score))
)"""


@dataclass(frozen=True)
class Cut:
    """The last document selected in a domain, and what is selected with it."""

    domain: str
    score: float
    doc_id: str
    n_documents: int  # with a finite score
    n_selected: int
    tokens_total: int
    tokens_selected: int


@dataclass
class _Descent:
    """The way down a domain, highest score first, to where its target is reached."""

    n_documents: int
    tokens_total: int
    by_tokens: bool
    target: int  # documents or tokens
    inside: int  # documents in the bin that holds the cut
    bin: int = 0
    shift: int = 0  # the bin is the ordinals from bin << shift to below (bin + 1) << shift
    documents_above: int = 0  # that bin
    tokens_above: int = 0
    cut: Cut | None = None

    def reach(self, documents: np.ndarray, tokens: np.ndarray) -> int | None:
        """Go past the items above the one in which the target is reached; its index, None if beyond all.

        `documents` and `tokens`: what each item holds, int64, items in descending order.
        """
        weights, passed = (tokens, self.tokens_above) if self.by_tokens else (documents, self.documents_above)
        index = int(np.searchsorted(np.cumsum(weights), self.target - passed))
        self.documents_above += int(documents[:index].sum())
        self.tokens_above += int(tokens[:index].sum())
        return index if index < len(weights) else None


def find_cuts(
    connection: duckdb.DuckDBPyConnection, fingerprint: str, fraction: float, *, by_tokens: bool
) -> list[Cut]:
    """The cuts of all domains in the view `scores`, by domain.

    Raises ValueError for a counted document without tokens, and for one that occurs twice at a cut.
    """
    params = {"fingerprint": fingerprint}
    descents = _begin(connection, params, Fraction(str(fraction)), by_tokens=by_tokens)
    while wide := {name: one for name, one in descents.items() if one.shift and one.inside > _FEW}:
        _narrow(connection, params, wide)
    if descents:
        _finish(connection, params, descents)
        _verify(connection, params, descents)
    return [_cut(descent) for descent in descents.values()]


def _begin(
    connection: duckdb.DuckDBPyConnection, params: dict[str, str], fraction: Fraction, *, by_tokens: bool
) -> dict[str, _Descent]:
    bins = connection.sql(
        f"""
        SELECT domain, ordinal >> {_FIRST_SHIFT} AS bin, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens,
               min(n_tokens) AS fewest
        FROM {_COUNTED} GROUP BY ALL ORDER BY domain, bin DESC
        """,
        params=params,
    ).to_arrow_reader()
    descents = {}
    for domain, rows in _runs([bins.read_all().combine_chunks()]):
        if pc.min(rows["fewest"]).as_py() < 1:
            raise ValueError(f"scores: domain {domain!r} has a document with a score but without tokens")
        n_documents, tokens_total = pc.sum(rows["documents"]).as_py(), pc.sum(rows["tokens"]).as_py()
        total = tokens_total if by_tokens else n_documents
        target = -(-fraction.numerator * total // fraction.denominator)  # rounded up
        descents[domain] = _Descent(n_documents, tokens_total, by_tokens, target, n_documents)
        _enter(descents[domain], rows, _FIRST_SHIFT)
    return descents


def _narrow(connection: duckdb.DuckDBPyConnection, params: dict[str, str], wide: dict[str, _Descent]) -> None:
    bins = connection.sql(
        f"""
        SELECT domain, ordinal >> finer AS bin, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens
        FROM {_COUNTED} JOIN {_brackets(wide)} USING (domain)
        WHERE ordinal BETWEEN low AND high GROUP BY ALL ORDER BY domain, bin DESC
        """,
        params=params,
    ).to_arrow_reader()
    for domain, rows in _runs([bins.read_all().combine_chunks()]):
        _enter(wide[domain], rows, _finer(wide[domain]))


def _enter(descent: _Descent, bins: pa.Table, shift: int) -> None:
    index = descent.reach(_numbers(bins["documents"]), _numbers(bins["tokens"]))
    assert index is not None, "a bracket holds its cut"
    descent.bin, descent.inside = bins["bin"][index].as_py(), bins["documents"][index].as_py()
    descent.shift = shift


def _finish(connection: duckdb.DuckDBPyConnection, params: dict[str, str], descents: dict[str, _Descent]) -> None:
    documents = connection.sql(
        f"""
        SELECT domain, score, doc_id, n_tokens FROM {_COUNTED} JOIN {_brackets(descents)} USING (domain)
        WHERE ordinal BETWEEN low AND high ORDER BY domain, ordinal DESC, doc_id DESC
        """,
        params=params,
    ).to_arrow_reader(65_536)
    for domain, rows in _runs(documents):
        descent = descents[domain]
        if descent.cut is not None:
            continue
        tokens = _numbers(rows["n_tokens"])
        index = descent.reach(np.ones(len(tokens), dtype=np.int64), tokens)
        if index is not None:
            descent.cut = Cut(
                domain=domain,
                score=rows["score"][index].as_py() + 0.0,  # one zero
                doc_id=rows["doc_id"][index].as_py(),
                n_documents=descent.n_documents,
                n_selected=descent.documents_above + 1,
                tokens_total=descent.tokens_total,
                tokens_selected=descent.tokens_above + int(tokens[index]),
            )


def _verify(connection: duckdb.DuckDBPyConnection, params: dict[str, str], descents: dict[str, _Descent]) -> None:
    """Count what the cuts select: more than intended means that a cut's document is there twice."""
    found = [_cut(descent) for descent in descents.values()]
    cuts = ", ".join(
        f"({literal(cut.domain)}, {literal(repr(cut.score))}::DOUBLE, {literal(cut.doc_id)})" for cut in found
    )
    counts = connection.execute(
        f"""
        SELECT domain, count(*) FROM {_COUNTED} JOIN (VALUES {cuts}) AS cuts(domain, cut_score, cut_doc_id)
        USING (domain) WHERE score > cut_score OR (score = cut_score AND doc_id >= cut_doc_id)
        GROUP BY domain ORDER BY domain
        """,
        params,
    ).fetchall()
    for domain, count in counts:
        cut = _cut(descents[domain])
        if count != cut.n_selected:
            raise ValueError(f"scores: document {cut.doc_id!r} of domain {domain!r} occurs more than once")


def _cut(descent: _Descent) -> Cut:
    assert descent.cut is not None, "a bracket holds its cut"
    return descent.cut


def _finer(descent: _Descent) -> int:
    return max(0, descent.shift - _FINER_BY)


def _brackets(descents: dict[str, _Descent]) -> str:
    """The ordinals still in question, as a relation (domain, low, high, finer)."""
    rows = []
    for domain, one in descents.items():
        low, high = one.bin << one.shift, ((one.bin + 1) << one.shift) - 1
        rows.append(f"({literal(domain)}, {low}::BIGINT, {high}::BIGINT, {_finer(one)})")
    return f"(VALUES {', '.join(rows)}) AS brackets(domain, low, high, finer)"


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
