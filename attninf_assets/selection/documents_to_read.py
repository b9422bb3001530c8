"""Documents to read: the highest of a domain, those around the cut, the lowest, with how their texts begin.

Texts are read from the source files, of which as little is read as their formats let.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.printable import printable, shortened
from attninf_assets.corpus.texts import few_texts
from attninf_assets.selection.comparison import Moved
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets.store.uris import redacted

if TYPE_CHECKING:
    import duckdb

__all__ = ["Excerpt", "around", "beginnings", "middle", "selection_of", "with_texts"]

LONGEST = 300  # characters of a text that are shown
_IN_A_LINE = 160
SECONDS = 30.0  # after which no more files are opened
_DEEPEST = 100_000  # lines of a JSONL file before one that is read
_FEATURES = ("n_words", "repetition", "repeated_lines", "zstd_ratio", "alphabetic")
FindShard = Callable[[str], Shard]


@dataclass(frozen=True)
class Excerpt:
    """A document to read: which it is, where it stands, and how its text begins or why that cannot be shown."""

    place: str  # "top", "above the cut", "below the cut" or "bottom"
    rank: int  # 1 is the highest
    domain: str
    shard: str
    doc_id: str
    score: float
    n_tokens: int
    begins: str | None = None
    n_characters: int | None = None
    problem: str | None = None
    features: Mapping[str, float] | None = None


def selection_of(row: Mapping[str, Any]) -> str:
    """The name of the selection that a row of `thresholds` or `selected_subset` is of."""
    return str(row.get("selection") or "paper")


def around(
    connection: duckdb.DuckDBPyConnection,
    domain: str,
    cut: tuple[float, str],
    *,
    selector_fingerprint: str,
    n: int = 10,
    what: str = "cut",
) -> list[Excerpt]:
    """The domain's `n` highest documents, `n` around the cut and `n` lowest, from the view `scores`, highest first.

    A cut is the (score, doc_id) of the last document above it; `what` names it. None is there twice. Only these are
    held in memory.
    """
    whole: dict[str, Any] = {"fingerprint": selector_fingerprint, "domain": domain}
    of_cut = whole | {"score": cut[0], "id": cut[1]}
    counted = "FROM scores WHERE selector_fingerprint = $fingerprint AND domain = $domain AND isfinite(score)"
    is_above = "(score, doc_id) >= ($score::DOUBLE, $id::VARCHAR)"
    ((n_above, n_all),) = connection.execute(f"SELECT count_if({is_above}), count(*) {counted}", of_cut).fetchall()
    falling, rising = "ORDER BY score DESC, doc_id DESC", "ORDER BY score, doc_id"
    chosen: dict[str, Excerpt] = {}
    for place, n_there, among, order, first_rank, step in [
        ("top", n, "", falling, 1, 1),
        (f"above the {what}", -(-n // 2), f"AND {is_above}", rising, n_above, -1),
        (f"below the {what}", n // 2, f"AND NOT {is_above}", falling, n_above + 1, 1),
        ("bottom", n, "", rising, n_all, -1),
    ]:
        rows = connection.execute(
            f"SELECT shard, doc_id, score, n_tokens {counted} {among} {order} LIMIT {n_there}",
            of_cut if among else whole,
        ).fetchall()
        for number, (shard, doc_id, score, n_tokens) in enumerate(rows):
            rank = first_rank + step * number
            chosen.setdefault(doc_id, Excerpt(place, rank, domain, shard, doc_id, score, n_tokens))
    return sorted(chosen.values(), key=lambda one: one.rank)


def middle(
    connection: duckdb.DuckDBPyConnection, domain: str, *, selector_fingerprint: str
) -> tuple[float, str] | None:
    """The (score, doc_id) in the middle of the domain's documents in the view `scores`: a cut where there is none yet.

    None where the domain has no finite score.
    """
    counted = "FROM scores WHERE selector_fingerprint = $1 AND domain = $2 AND isfinite(score)"
    rows = connection.execute(
        f"SELECT score, min(doc_id) FROM (SELECT score, doc_id {counted}) "
        f"WHERE score = (SELECT quantile_disc(score, 0.5) {counted}) GROUP BY score",
        [selector_fingerprint, domain],
    ).fetchall()
    return (float(rows[0][0]), str(rows[0][1])) if rows else None


def with_texts(
    lake: Lake,
    excerpts: Sequence[Excerpt],
    find: FindShard,
    *,
    storage_options: StorageOptions = NO_OPTIONS,
    seconds: float = SECONDS,
) -> list[Excerpt]:
    """The excerpts in their order with how their texts begin, and their features where the table has them.

    A text that is gone or changed is told in its place, and so is one whose file was not opened because `seconds` had
    passed. `find` gives the shard of a key, and raises `ValueError` where it is no longer there.
    """
    until = time.monotonic() + seconds
    done: dict[tuple[str, str], Excerpt] = {}
    of_shard = sorted(excerpts, key=lambda one: (one.domain, one.shard))
    for (domain, shard), group in groupby(of_shard, key=lambda one: (one.domain, one.shard)):
        wanted = {one.doc_id: one for one in group}
        for found in _read(lake, domain, shard, wanted, find, storage_options, until):
            done[domain, found.doc_id] = found
    return [done[one.domain, one.doc_id] for one in excerpts]


def beginnings(
    lake: Lake, moved: Iterable[Moved], find: FindShard, *, storage_options: StorageOptions = NO_OPTIONS
) -> dict[tuple[str, str], str]:
    """How the text of each document begins by (domain, doc_id), in one line, what would act in it escaped.

    In place of a text that cannot be read stands the reason, in brackets.
    """
    wanted = [Excerpt("", one.rank, one.domain, one.shard, one.doc_id, one.score, one.n_tokens) for one in moved]
    found = with_texts(lake, wanted, find, storage_options=storage_options)
    return {
        (one.domain, one.doc_id): f"[{printable(one.problem)}]"
        if one.begins is None or one.problem
        else shortened(one.begins, most=_IN_A_LINE)
        for one in found
    }


def _read(
    lake: Lake,
    domain: str,
    shard: str,
    wanted: Mapping[str, Excerpt],
    find: FindShard,
    storage_options: StorageOptions,
    until: float,
) -> Iterator[Excerpt]:
    where = {"domain": domain, "shard": shard}
    only = pc.field("doc_id").isin(pa.array(wanted, pa.string()))
    indexed = lake.read("documents", where=where, only=only)
    features = _features(lake, where, only)
    left = {doc_id: replace(one, features=features.get(doc_id)) for doc_id, one in wanted.items()}
    problem = "documents has it no more"
    for doc_id in wanted.keys() - set(indexed["doc_id"].to_pylist()):
        yield replace(left.pop(doc_id), problem=problem)
    if not left:
        return
    try:
        if time.monotonic() > until:
            raise ValueError("not read: reading the others took all the time there was for it")
        source = find(f"{domain}.{shard}")
        if source.format != "parquet":
            deep = indexed.filter(pc.field("source_row") >= _DEEPEST)
            for doc_id, row in zip(deep["doc_id"].to_pylist(), deep["source_row"].to_pylist(), strict=True):
                yield replace(left.pop(doc_id), problem=f"not read: it lies {row:,} lines deep in its file")
            indexed = indexed.filter(pc.field("source_row") < _DEEPEST)
        for found in few_texts(source, indexed, storage_options=storage_options):
            begins = None if found.text is None else found.text[:LONGEST]
            length = None if found.text is None else len(found.text)
            yield replace(left.pop(found.doc_id), begins=begins, n_characters=length, problem=found.problem)
    except (ValueError, OSError) as error:  # the numbers are worth showing without the texts
        problem = redacted(error)
    for one in left.values():
        yield replace(one, problem=problem)


def _features(lake: Lake, where: Mapping[str, str], only: pc.Expression) -> dict[str, dict[str, Any]]:
    if "document_features" not in TABLES:
        return {}
    rows = lake.read("document_features", columns=["doc_id", *_FEATURES], where=where, only=only).to_pylist()
    return {row["doc_id"]: {name: row[name] for name in _FEATURES} for row in rows}
