"""The selection: a score threshold per domain, and the documents at or above it.

A domain's documents with a finite score that pass the selection's filters are ordered by (key, doc_id), highest first;
the key is the score, unless the selection orders otherwise. Selected is the shortest prefix that reaches the wanted
fraction or number of the documents, or of their tokens. The threshold is the last document selected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from attninf_assets.selection.budgets import band_edges, extra_draws, targets, whole_domains
from attninf_assets.selection.cuts import Amount, Cut, Part, Ranking, find_cuts
from attninf_assets.selection.definitions import PAPER, SelectionDefinition
from attninf_assets.selection.eligible import Eligible
from attninf_assets.selection.ordering import fit
from attninf_assets.selection.rule import At, Rule, Rules
from attninf_assets.store.query import rows_digest
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.sql import literal
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    import duckdb

__all__ = ["find_thresholds", "selected", "selection_digest", "stored_definitions", "stored_rules"]


@dataclass(frozen=True)
class _Kept:
    """What is selected in a domain."""

    score: float  # of the last document
    at: At
    amount: Amount


def find_thresholds(
    connection: duckdb.DuckDBPyConnection,
    *,
    selector_fingerprint: str,
    definition: SelectionDefinition,
    selection: str = PAPER,
    place: str = "the selections file",
) -> pa.Table:
    """The `thresholds` rows of a selection: one for every domain that has a finite score by that selector.

    Read are the views `scores` and, where the definition mentions a feature, `document_features`. A fraction is taken
    as the decimal it is written as: 0.07 of 100 documents is 7. Rows of other selectors, and null, NaN or infinite
    scores, neither count nor can be selected.

    Raises ValueError where nothing is scored, naming file and field where a domain has less than is asked for, or
    nothing that passes the filters; for a counted document without tokens; and for a document that occurs twice exactly
    at a cut, which would be ambiguous. (Repeated ids elsewhere do not move the cut and are not looked for here.)
    """
    field = f"{place}: selections.{selection}"
    eligible = Eligible(definition, selector_fingerprint)
    eligible.prepare(connection)
    scored = eligible.scored_by_domain(connection)
    if not scored:
        raise ValueError(
            f"nothing is scored by selector {selector_fingerprint}: materialize attention_influence_scores first"
        )
    _require_scored(definition, scored, field=field)
    fits = {one.domain: one for one in fit(connection, definition, eligible.rows)}
    unfinished = Rules(eligible, {domain: Rule({}, fits.get(domain)) for domain in scored})
    unfinished.put_into(connection)
    parts, cuts = find_cuts(
        connection,
        Ranking(unfinished.ranked, {}),
        lambda parts: targets(definition, parts, field=field) + band_edges(definition, parts),
    )
    whole = whole_domains(parts)
    if passed_over := [domain for domain in scored if domain not in whole]:
        n = scored[passed_over[0]].documents
        raise ValueError(
            f"{field}: none of the {n:,} scored documents of domain {passed_over[0]!r} passes its filters; "
            "exclude the domain, or filter less"
        )
    rules = _with_draws(connection, _ruled(unfinished, cuts))
    kept = _kept(connection, rules, cuts)
    if nothing := sorted(whole.keys() - kept.keys()):
        raise ValueError(f"{field}.bands: nothing of domain {nothing[0]!r} is selected")
    rows = []
    for domain in sorted(whole):
        keep, one = definition.kept(domain), kept[domain]
        total = whole[domain].tokens if keep.budget == "tokens" else whole[domain].documents
        rows.append(
            {
                "selection": selection,
                "domain": domain,
                "fraction": keep.fraction if keep.number is None else keep.number / total,
                "budget": keep.budget,
                "threshold_score": one.score,
                "threshold_doc_id": one.at.doc_id,
                "n_documents": scored[domain].documents,
                "n_selected": one.amount.documents,
                "tokens_total": scored[domain].tokens,
                "tokens_selected": one.amount.tokens,
                "selector_fingerprint": selector_fingerprint,
                "n_eligible": whole[domain].documents,
                "tokens_eligible": whole[domain].tokens,
                "wanted": keep.number,
                "threshold_key": one.at.key,
                "definition": definition.to_json(),
                "definition_digest": definition.digest,
                "rule": rules.by_domain[domain].to_json(),
            }
        )
    return pa.Table.from_pylist(rows, schema=TABLES["thresholds"])


def _require_scored(definition: SelectionDefinition, scored: Collection[str], *, field: str) -> None:
    for domain in definition.domains:
        if domain not in scored and not definition.excludes(domain):
            raise ValueError(f"{field}.domains.{domain}: no document of the domain has a score")


def _ruled(rules: Rules, cuts: list[Cut]) -> Rules:
    """The rules with their cuts: of each domain those of what is kept come first, and then the bands' edges."""
    n_edges = max(0, len(rules.eligible.definition.weighted_bands()) - 1)
    by_domain: dict[str, list[Cut]] = {}
    for cut in cuts:
        by_domain.setdefault(cut.part.domain, []).append(cut)
    return Rules(
        rules.eligible,
        {
            domain: Rule(
                _cut_parts(of_domain[: len(of_domain) - n_edges]),
                rules.by_domain[domain].fit,
                tuple(At(cut.key, cut.doc_id) for cut in of_domain[len(of_domain) - n_edges :]),
            )
            for domain, of_domain in by_domain.items()
        },
    )


def _cut_parts(cuts: Sequence[Cut]) -> dict[int, At]:
    """The cuts of a domain's parts, in order, each without its last document where the target is reached without it.

    A part is cut where it reaches its own target. What the parts before it hold beyond theirs makes up for the last
    document, so that down to any part's end the targets are reached, and exceeded by less than one document.
    """
    kept: dict[int, At] = {}
    beyond = 0  # the targets so far
    for cut in cuts:
        reached, last = (cut.kept.tokens, cut.last_tokens) if cut.by_tokens else (cut.kept.documents, 1)
        below = beyond + reached - last >= cut.target
        beyond += reached - (last if below else 0) - cut.target
        kept[cut.part.number] = At(cut.key, cut.doc_id, below)
    return kept


def _with_draws(connection: duckdb.DuckDBPyConnection, rules: Rules) -> Rules:
    """The rules with what is drawn in bands whose weight is no whole number; known to the connection in any case."""
    rules.put_into(connection)
    definition = rules.eligible.definition
    bands = definition.weighted_bands()
    if not bands:
        return rules
    drawn: dict[Part, At] = {}
    if any(band.weight.denominator != 1 for band in bands):
        _, cuts = find_cuts(connection, Ranking(rules.to_draw_from, {}), lambda parts: extra_draws(definition, parts))
        drawn = {cut.part: At(cut.key, cut.doc_id) for cut in cuts}
    with_draws = Rules(
        rules.eligible,
        {
            domain: Rule(rule.cuts, rule.fit, rule.edges, tuple(drawn.get(Part(domain, n)) for n in range(len(bands))))
            for domain, rule in rules.by_domain.items()
        },
    )
    with_draws.put_into(connection)
    return with_draws


def _kept(connection: duckdb.DuckDBPyConnection, rules: Rules, cuts: list[Cut]) -> Mapping[str, _Kept]:
    """What the rules select; where keys are the scores, and each domain has one cut, that is what the cuts say."""
    definition = rules.eligible.definition
    if definition.order == "score" and not definition.temperature and definition.bands is None:
        return {cut.part.domain: _Kept(cut.key, At(cut.key, cut.doc_id), cut.kept) for cut in cuts}
    rows: list[tuple[Any, ...]] = connection.execute(
        f"""
        SELECT domain, count(*), sum(n_tokens)::BIGINT, min((key, doc_id)) AS last, arg_min(score, (key, doc_id))
        FROM {rules.selected} GROUP BY domain
        """
    ).fetchall()
    return {
        domain: _Kept(score, At(key + 0.0, doc_id), Amount(documents, tokens))
        for domain, documents, tokens, (key, doc_id), score in rows
    }


def selection_digest(connection: duckdb.DuckDBPyConnection, selection: str = PAPER) -> str:
    """A digest of a selection's rows in the view `selected_subset`: changes with any of them, whatever their order."""
    columns = ["selector_fingerprint", "domain", "shard", "doc_id", "score", "copies"]
    return rows_digest(connection, f"selected_subset WHERE selection = {literal(selection)}", columns)


def selected(
    connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, selection: str = PAPER
) -> pa.RecordBatchReader:
    """The `selected_subset` rows of a selection, streamed from the views `scores` and `thresholds`, and, where the
    definition mentions a feature, `document_features`.

    Raises ValueError if the thresholds hold no row of that selection by that selector, or more than one for a domain.
    """
    rules = stored_rules(connection, selector_fingerprint=selector_fingerprint, selection=selection)
    rules.eligible.prepare(connection)
    rules.put_into(connection)
    schema = TABLES["selected_subset"]
    rows = connection.sql(
        f"""
        SELECT $selection AS selection, doc_id, domain, shard, score, n_tokens, $fingerprint AS selector_fingerprint,
               key AS order_key, copies FROM {rules.selected}
        """,
        params={"selection": selection, "fingerprint": selector_fingerprint},
    ).to_arrow_reader(65_536)
    return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in rows))


def stored_rules(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, selection: str) -> Rules:
    """The rules in the view `thresholds`. Raises as `selected` does."""
    rows = connection.execute(
        "SELECT domain, definition, rule FROM thresholds WHERE selector_fingerprint = $1 AND selection = $2 ORDER BY 1",
        [selector_fingerprint, selection],
    ).fetchall()
    if not rows:
        raise ValueError(
            f"no thresholds of selection {selection!r} by selector {selector_fingerprint}: materialize "
            "score_thresholds first"
        )
    domains = [domain for domain, *_ in rows]
    if repeated := [domain for domain in domains if domains.count(domain) > 1]:
        raise ValueError(f"thresholds: domain {repeated[0]!r} has several for selector {selector_fingerprint}")
    eligible = Eligible(SelectionDefinition.from_json(rows[0][1]), selector_fingerprint)
    return Rules(eligible, {domain: Rule.from_json(rule, domain=domain) for domain, _, rule in rows})


def stored_definitions(lake: Lake, selection: str) -> list[SelectionDefinition]:
    """The definitions that the selection's thresholds were found by."""
    texts = lake.read("thresholds", columns=["definition"], where={"selection": selection})["definition"]
    return [SelectionDefinition.from_json(text) for text in sorted(set(texts.to_pylist()))]
