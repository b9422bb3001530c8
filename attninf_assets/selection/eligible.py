"""The documents that a selection may select, as a SQL relation over the views `scores` and `document_features`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from attninf_assets.selection.cuts import Amount
from attninf_assets.selection.definitions import SelectionDefinition
from attninf_assets.selection.ordering import CONFOUNDERS
from attninf_assets.selection.where_clause import check_where, columns_in
from attninf_assets.store.query import SQL_TYPES
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.sql import literal

if TYPE_CHECKING:
    import duckdb

__all__ = ["FEATURES", "Eligible", "check_definition", "feature_columns", "tables_needed"]

FEATURES = "document_features"
_WINDOW_SCORES = "window_scores"
_OF_SCORES = ("doc_id", "domain", "shard", "n_tokens", "loss_base", "loss_reference", "score")
_MAX_WINDOW = "max_window_score"


def feature_columns() -> dict[str, str]:
    """The features of a document that a selection may use, with their SQL types; none where no table has any."""
    schema = TABLES.get(FEATURES, pa.schema([]))
    beside = {*TABLES["scores"].names, "minhash_bands", "features_version"}
    return {field.name: SQL_TYPES[field.type] for field in schema if field.name not in beside}


def _columns() -> dict[str, str]:
    """What `where` may mention, with the SQL types."""
    scores = {name: SQL_TYPES[TABLES["scores"].field(name).type] for name in _OF_SCORES}
    windows = {_MAX_WINDOW: "DOUBLE"} if _WINDOW_SCORES in TABLES["scores"].names else {}
    return scores | windows | feature_columns()


def check_definition(name: str, definition: SelectionDefinition, *, place: str) -> None:
    """Raise ValueError naming file and field where `where` is not a condition on a document, or a feature is asked for
    that there is not."""
    field = f"{place}: selections.{name}"
    if definition.where is not None:
        try:
            check_where(definition.where, _columns())
        except ValueError as error:
            raise ValueError(f"{field}.where: {error}") from None
    if definition.order == "score_without_confounders" and not set(CONFOUNDERS) & set(feature_columns()):
        raise ValueError(f"{field}.order: score_without_confounders needs the table {FEATURES}, which there is not")
    if definition.order == _MAX_WINDOW and _MAX_WINDOW not in _columns():
        raise ValueError(f"{field}.order: {_MAX_WINDOW} needs the column {_WINDOW_SCORES}, which scores do not have")


def _mentions(definition: SelectionDefinition) -> set[str]:
    mentioned = set() if definition.where is None else columns_in(definition.where)
    if definition.order == "score_without_confounders":
        mentioned |= set(CONFOUNDERS) & set(feature_columns())
    return mentioned | ({_MAX_WINDOW} if definition.order == _MAX_WINDOW else set())


def tables_needed(definition: SelectionDefinition) -> list[str]:
    """The tables that the selection is made from, beside `documents`."""
    return ["scores", FEATURES] if _mentions(definition) & set(feature_columns()) else ["scores"]


@dataclass(frozen=True)
class Eligible:
    """The documents with a finite score by a selector that pass a definition's filters."""

    definition: SelectionDefinition
    selector_fingerprint: str

    @property
    def is_filtered(self) -> bool:
        """Whether a scored document may be none of them, of a domain that is not excluded."""
        return bool(self.definition.where or self.definition.lengths())

    @property
    def _mentioned(self) -> set[str]:
        return _mentions(self.definition)

    @property
    def _features(self) -> list[str]:
        return sorted(self._mentioned & set(feature_columns()))

    @property
    def scored(self) -> str:
        """The condition on a row of `scores` that it is one of the selector's, of a domain that is not excluded."""
        excluded = [domain for domain in self.definition.domains if self.definition.excludes(domain)]
        conditions = [f"selector_fingerprint = {literal(self.selector_fingerprint)}", "isfinite(score)"]
        if excluded:
            conditions.append(f"domain NOT IN ({', '.join(map(literal, excluded))})")
        return " AND ".join(conditions)

    @property
    def rows(self) -> str:
        """The documents as a relation: all columns of `scores`, and what the definition mentions besides."""
        columns = ["scores.*", *(f'"{FEATURES}"."{name}"' for name in self._features)]
        if _MAX_WINDOW in self._mentioned:
            columns.append(f"coalesce(list_max({_WINDOW_SCORES}), score) AS {_MAX_WINDOW}")
        joined = f" JOIN {FEATURES} USING (domain, shard, doc_id, text_sha256)" if self._features else ""
        rows = f"(SELECT {', '.join(columns)} FROM (SELECT * FROM scores WHERE {self.scored}) AS scores{joined})"
        conditions = [
            f"(domain <> {literal(domain)} OR n_tokens BETWEEN {fewest} AND {2**62 if most is None else most})"
            for domain, (fewest, most) in sorted(self.definition.lengths().items())
        ]
        if self.definition.where is not None:
            conditions.append(f"(\n{self.definition.where}\n)")
        return f"(SELECT * FROM {rows} WHERE {' AND '.join(conditions)})" if conditions else rows

    def scored_by_domain(self, connection: duckdb.DuckDBPyConnection) -> dict[str, Amount]:
        """The documents and tokens of every domain before filters.

        Raises ValueError naming a domain where documents lack the features that the definition needs.
        """
        count = f"SELECT domain, count(*), sum(n_tokens)::BIGINT FROM scores WHERE {self.scored} GROUP BY 1 ORDER BY 1"
        scored = {domain: Amount(n, tokens) for domain, n, tokens in connection.execute(count).fetchall()}
        if self._features:
            joined = f"scores JOIN {FEATURES} USING (domain, shard, doc_id, text_sha256)"
            having = dict(
                connection.execute(f"SELECT domain, count(*) FROM {joined} WHERE {self.scored} GROUP BY 1").fetchall()
            )
            for domain, (n, _) in scored.items():
                if (n_with := having.get(domain, 0)) != n:
                    raise ValueError(
                        f"domain {domain!r}: {n - n_with:,} of {n:,} scored documents have no row in {FEATURES} for "
                        f"their text, which {', '.join(self._features)} are in: materialize {FEATURES} first"
                    )
        return scored
