"""What a mix is made from: four tables, each at one version, of one selection, and that they belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from attninf_assets.selection.definitions import PAPER
from attninf_assets.selection.thresholds import selection_digest
from attninf_assets.store.query import connect, rows_digest
from attninf_assets.store.sql import literal
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    import duckdb

__all__ = ["MixSnapshot"]

_MADE_BY = {  # the tables read, and the assets that write them
    "thresholds": "score_thresholds",
    "selected_subset": "selected_subset",
    "scores": "attention_influence_scores",
    "documents": "raw_corpus",
}
_OF_SELECTION = (
    "selection", "domain", "fraction", "budget", "threshold_score", "threshold_doc_id",
    "threshold_key", "n_selected",
)  # fmt: skip


@dataclass(frozen=True)
class MixSnapshot:
    """The tables that a mix reads, at the versions they had when the snapshot was taken. Everything about one mix is
    read at these: its provenance and every row."""

    lake: Lake
    versions: Mapping[str, int]  # of documents, scores, thresholds, selected_subset
    selector_fingerprint: str
    name: str  # of the selection
    selection: tuple[Mapping[str, Any], ...]  # by domain: what its threshold says
    digests: Mapping[str, str]  # of all else that a mix reads in the tables
    n_bytes: int  # of all indexed documents' texts in UTF-8

    @classmethod
    def take(cls, lake: Lake, *, selector_fingerprint: str, selection: str = PAPER) -> Self:
        """The tables as they are now, found to belong together.

        The versions of four Delta tables cannot be read at one instant, so a commit may come between them. Therefore it
        is checked, at these very versions, that every selected document is one that is scored, with the same score, and
        indexed, with the text that was scored; and that each domain's threshold is of the documents selected: of as
        many, of as many tokens, and with the same last one. Raises `ValueError` where one of these does not hold, where
        a table is missing, where there is no such `selection`, and where it is of another selector.
        """
        versions = {name: lake.version(name) for name in _MADE_BY}
        found = {name: version for name, version in versions.items() if version is not None}
        if missing := [name for name in versions if name not in found]:
            raise ValueError(f"table {missing[0]} does not exist: materialize {_MADE_BY[missing[0]]} first")
        with connect(lake, *found, versions=found) as connection:
            rows = _selection(connection, selector_fingerprint, selection)
            _require_that_the_selected_are_scored(connection, selection)
            digests = {
                "documents": rows_digest(connection, "documents", ["domain", "shard", "doc_id", "text_sha256"]),
                "scores": rows_digest(
                    connection,
                    f"scores WHERE selector_fingerprint = {literal(selector_fingerprint)}",
                    ["domain", "shard", "doc_id", "n_tokens"],
                ),
                "selected_subset": selection_digest(connection, selection),
            }
            ((n_bytes,),) = connection.execute("SELECT coalesce(sum(n_bytes), 0)::BIGINT FROM documents").fetchall()
        return cls(lake, found, selector_fingerprint, selection, rows, digests, int(n_bytes))

    @property
    def provenance(self) -> dict[str, Any]:
        """What the mix is made from, as content: equal provenance, weights and seed give the same files and counts."""
        return {
            "selector_fingerprint": self.selector_fingerprint,
            "selection": [dict(row) for row in self.selection],
            "digests": dict(self.digests),
        }

    def documents_by_shard(self) -> list[tuple[str, str, int]]:
        """(domain, shard, number of documents) of every indexed shard, sorted."""
        with connect(self.lake, "documents", versions=self.versions) as connection:
            return connection.execute(
                "SELECT domain, shard, count(*) FROM documents GROUP BY domain, shard ORDER BY domain, shard"
            ).fetchall()


def _selection(
    connection: duckdb.DuckDBPyConnection, selector_fingerprint: str, name: str
) -> tuple[Mapping[str, Any], ...]:
    """The selection's rows of the view `thresholds`, each compared with its domain's of the view `selected_subset`."""
    rows = connection.execute(
        f"""
        SELECT {", ".join(_OF_SELECTION)}, tokens_selected, selector_fingerprint IS NOT DISTINCT FROM $1,
               coalesce(n, 0), coalesce(tokens, 0)::BIGINT, lowest, coalesce(ours, true)
        FROM (SELECT * FROM thresholds WHERE selection = $2) FULL JOIN (
            SELECT domain, count(*) AS n, sum(n_tokens) AS tokens, min((order_key, doc_id)) AS lowest,
                   bool_and(selector_fingerprint = $1) AS ours
            FROM selected_subset WHERE selection = $2 GROUP BY domain) USING (domain) ORDER BY domain
        """,
        [selector_fingerprint, name],
    ).fetchall()
    if not rows:
        ((there,),) = connection.execute(
            "SELECT string_agg(DISTINCT selection, ', ' ORDER BY selection) FROM thresholds"
        ).fetchall()
        raise ValueError(
            f"no thresholds of selection {name!r}, only of {there}: materialize its score_thresholds and "
            "selected_subset first"
            if there
            else f"no thresholds of selection {name!r}: materialize score_thresholds and selected_subset first"
        )
    selection = []
    for *values, tokens_wanted, threshold_ours, n_selected, tokens, lowest, subset_ours in rows:
        row = dict(zip(_OF_SELECTION, values, strict=True))
        domain, n_wanted, last = row["domain"], row["n_selected"], (row["threshold_key"], row["threshold_doc_id"])
        if not (threshold_ours and subset_ours):
            raise ValueError(
                f"the selection of domain {domain!r} is not by the selector in use, {selector_fingerprint}: "
                "materialize score_thresholds and selected_subset again"
            )
        for what, found, wanted in [
            (f"{n_selected} documents are selected", n_selected, n_wanted),
            (f"{tokens} tokens are selected", tokens, tokens_wanted),
            (f"the last document selected is {lowest}", lowest, last),
        ]:
            if found != wanted:
                raise ValueError(
                    f"domain {domain!r}: {what}, its threshold says {wanted}: materialize selected_subset again"
                )
        selection.append(row)
    return tuple(selection)


def _require_that_the_selected_are_scored(connection: duckdb.DuckDBPyConnection, selection: str) -> None:
    """Raise `ValueError`, naming one, where documents are selected that are not scored and indexed as they are."""
    strays = connection.execute(
        """
        SELECT domain, shard, doc_id, count(*) OVER ()
        FROM (SELECT * FROM selected_subset WHERE selection = $1) ANTI JOIN (
            SELECT domain, shard, doc_id, selector_fingerprint, score, n_tokens
            FROM scores JOIN documents USING (domain, shard, doc_id, text_sha256))
        USING (domain, shard, doc_id, selector_fingerprint, score, n_tokens) ORDER BY ALL LIMIT 1
        """,
        [selection],
    ).fetchone()
    if strays is not None:
        domain, shard, doc_id, n = strays
        raise ValueError(
            f"{n} selected documents have another score or text than they were selected with, or none, document "
            f"{doc_id!r} of shard {domain}.{shard} among them: materialize the shard's attention_influence_scores, "
            "score_thresholds and selected_subset again"
        )
