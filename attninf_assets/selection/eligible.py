"""The documents that a selection may select, as a SQL relation over the views `scores` and `document_features`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attninf_assets.selection.cuts import Amount
from attninf_assets.selection.definitions import SelectionDefinition
from attninf_assets.selection.ordering import CONFOUNDERS
from attninf_assets.selection.where_clause import check_where, columns_in
from attninf_assets.store.query import SQL_TYPES, connect
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.sql import literal
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    import duckdb

__all__ = ["FEATURES", "Eligible", "check_definition", "connect_for", "feature_columns"]

FEATURES = "document_features"
_WINDOW_SCORES = "window_scores"
_OF_SCORES = ("doc_id", "domain", "shard", "n_tokens", "loss_base", "loss_reference", "score")
_BASIC = {"doc_id", "domain", "shard", "n_tokens", "score"}  # what every selection is made with
_MAX_WINDOW = "max_window_score"
_JOINED = "selection_documents"


def feature_columns() -> dict[str, str]:
    """The features of a document that a selection may use, with their SQL types."""
    schema = TABLES[FEATURES]
    beside = {*TABLES["scores"].names, "minhash_bands", "features_version"}
    return {field.name: SQL_TYPES[field.type] for field in schema if field.name not in beside}


def _columns() -> dict[str, str]:
    """What `where` may mention, with the SQL types."""
    scores = {name: SQL_TYPES[TABLES["scores"].field(name).type] for name in _OF_SCORES}
    return scores | {_MAX_WINDOW: "DOUBLE"} | feature_columns()


def check_definition(name: str, definition: SelectionDefinition, *, place: str) -> None:
    """Raise ValueError naming file and field where `where` is no condition on a document."""
    field = f"{place}: selections.{name}"
    if definition.where is not None:
        try:
            check_where(definition.where, _columns())
        except ValueError as error:
            raise ValueError(f"{field}.where: {error}") from None


def _mentions(definition: SelectionDefinition) -> set[str]:
    mentioned = set() if definition.where is None else columns_in(definition.where)
    if definition.order == "score_without_confounders":
        mentioned |= set(CONFOUNDERS) & set(feature_columns())
    return mentioned | ({_MAX_WINDOW} if definition.order == _MAX_WINDOW else set())


@contextmanager
def connect_for(
    lake: Lake, definitions: Sequence[SelectionDefinition], *besides: str
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with views of the tables that these selections are made from, and of others `besides`."""
    mentioned: set[str] = set().union(*map(_mentions, definitions))
    features = [FEATURES] if mentioned & set(feature_columns()) else []
    later = ["scores"] if _MAX_WINDOW in mentioned else []
    with connect(lake, *besides, "scores", *features, later=later) as connection:
        yield connection


@dataclass(frozen=True)
class Eligible:
    """The documents with a finite score by a selector that pass a definition's filters."""

    definition: SelectionDefinition
    selector_fingerprint: str

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
        """The documents as a relation of what the definition mentions, and `prepare` was called for."""
        rows = _JOINED if self._features else f"(SELECT {self._columns} FROM scores WHERE {self.scored})"
        conditions = [
            f"(domain <> {literal(domain)} OR n_tokens BETWEEN {fewest} AND {2**62 if most is None else most})"
            for domain, (fewest, most) in sorted(self.definition.lengths().items())
        ]
        if self.definition.where is not None:
            conditions.append(f"(\n{self.definition.where}\n)")
        return f"(SELECT * FROM {rows} WHERE {' AND '.join(conditions)})" if conditions else rows

    @property
    def _columns(self) -> str:
        if _MAX_WINDOW not in self._mentioned:
            return "*"
        return f"*, coalesce(list_max({_WINDOW_SCORES}), score) AS {_MAX_WINDOW}"

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Join the scored documents with their features once, for all the scans that follow, where any is mentioned.

        They wait in a temporary table, on disk where memory is short.
        """
        if not self._features:
            return
        windows = self._columns.removeprefix("*")
        of_scores = sorted(_BASIC | (self._mentioned & set(_OF_SCORES)))
        columns = ", ".join([*(f"scores.{name}" for name in of_scores), *self._features])
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {_JOINED} AS SELECT {columns}{windows} FROM "
            f"(SELECT * FROM scores WHERE {self.scored}) AS scores "
            f"JOIN {FEATURES} USING (domain, shard, doc_id, text_sha256)"
        )

    def scored_by_domain(self, connection: duckdb.DuckDBPyConnection) -> dict[str, Amount]:
        """The documents and tokens of every domain before filters. `prepare` first.

        Raises ValueError naming a domain where documents lack the features that the definition needs.
        """
        count = f"SELECT domain, count(*), sum(n_tokens)::BIGINT FROM scores WHERE {self.scored} GROUP BY 1 ORDER BY 1"
        scored = {domain: Amount(n, tokens) for domain, n, tokens in connection.execute(count).fetchall()}
        if self._features:
            having = dict(connection.execute(f"SELECT domain, count(*) FROM {_JOINED} GROUP BY 1").fetchall())
            for domain, (n, _) in scored.items():
                if (n_with := having.get(domain, 0)) != n:
                    raise ValueError(
                        f"domain {domain!r}: {n - n_with:,} of {n:,} scored documents have no row in {FEATURES} for "
                        f"their text, which {', '.join(self._features)} are in: materialize {FEATURES} first"
                    )
        return scored
