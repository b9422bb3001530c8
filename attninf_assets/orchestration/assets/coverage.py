"""The assets `score_coverage` and `rescoring_preview`: which scores are current, and what the rest would cost."""

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.external import scoring_runs
from attninf_assets.orchestration.assets.scores import attention_influence_scores
from attninf_assets.orchestration.assets.selector import retrieval_heads
from attninf_assets.orchestration.connections.resources import CorpusResource, CostResource, LakeResource
from attninf_assets.orchestration.display.catalog import OWNERS
from attninf_assets.orchestration.display.metadata import as_json, records
from attninf_assets.orchestration.display.plots import coverage_bars, throughput_and_cost
from attninf_assets.orchestration.runs.partitions import corpus_shards
from attninf_assets.scores.cost import (
    Approval,
    Rates,
    cost_of,
    measured_rates,
    predicted_and_actual,
    read_approval,
    rescoring_estimate,
    scoring_history,
)
from attninf_assets.scores.coverage import SHARD_STATES, partition_states, shard_states, states_by_domain
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake


@dg.asset(
    deps=[raw_corpus, retrieval_heads, attention_influence_scores, scoring_runs],
    group_name="scores",
    owners=OWNERS,
    kinds={"duckdb"},
)
def score_coverage(
    context: dg.AssetExecutionContext, corpus: CorpusResource, lake: LakeResource, cost: CostResource
) -> dg.MaterializeResult:
    """The number of shards of each domain in each state of scoring, and what scoring has cost, in the metadata.

    It shows what is left to score before a selection is complete, looked up in the tables themselves; where the
    rescoring was previewed, predicted cost stands beside actual cost.

    Current: every document is scored by the selector in use. Stale: some are not. Missing: none is. Failed: stale or
    missing, and the last run failed. Not indexed: landed and registered, without documents. Source gone: the file is no
    longer there, whatever its scores.
    """
    tables = lake.tables()
    fingerprint = current_fingerprint(tables.root)
    states = states_of_shards(context.instance, corpus, tables, selector_fingerprint=fingerprint)
    total = Counter(states.values())
    by_domain = {
        domain: {state: counts[state] for state in SHARD_STATES} for domain, counts in states_by_domain(states).items()
    }
    unfinished = [key for key, state in sorted(states.items()) if state != "current"]
    context.log.info(", ".join(f"{total[state]:,} {state}" for state in SHARD_STATES if total[state]) or "no shards")
    return dg.MaterializeResult(
        metadata={
            "selector_fingerprint": fingerprint,
            "coverage": records(
                [{"domain": domain, **counts, "shards": sum(counts.values())} for domain, counts in by_domain.items()]
            ),
            "chart": coverage_bars(by_domain),
            **{f"shards_{state.replace(' ', '_')}": total[state] for state in SHARD_STATES},
            "shards": len(states),
            "unfinished": as_json(unfinished[:200]),
            **_throughput_and_cost(tables, fingerprint, cost),
            **_predicted_against_actual(tables, fingerprint),
        }
    )


def states_of_shards(
    instance: dg.DagsterInstance, corpus: CorpusResource, tables: Lake, *, selector_fingerprint: str
) -> dict[str, str]:
    """The state of every registered or stored shard, by key, from the tables, the instance and the corpus's files."""
    with connect(tables, "documents", "scores") as connection:
        stored = partition_states(connection, selector_fingerprint=selector_fingerprint)
    registered = instance.get_dynamic_partitions(str(corpus_shards.name))
    statuses = instance.get_status_by_partition(attention_influence_scores.key, registered, corpus_shards) or {}
    return shard_states(
        stored,
        registered=registered,
        failed={key for key, status in statuses.items() if status is not None and status.value == "FAILED"},
        landed={shard.key for shard in corpus.open().shards()},
    )


class PreviewConfig(dg.Config):
    """Run configuration of `rescoring_preview`: the approval, and rates to use instead of the measured ones."""

    confirm: bool = Field(default=False, description="Approve a rescoring above the spending limit.")
    tokens_per_second: float | None = Field(
        default=None, description="Of one device. Unset: as measured in the latest scoring runs."
    )
    bytes_per_token: float | None = Field(default=None, description="Unset: as measured in the scored documents.")


@dg.asset(deps=[raw_corpus, retrieval_heads], group_name="scores", owners=OWNERS, kinds={"duckdb"})
def rescoring_preview(
    context: dg.AssetExecutionContext, config: PreviewConfig, lake: LakeResource, cost: CostResource
) -> dg.MaterializeResult:
    """An estimate of what scoring all documents without a current score takes: tokens, device hours, money.

    It lets somebody see and approve the cost before it is spent. Above the spending limit it fails until it is
    materialized with `confirm`; where a limit is set, no run scores anything by a selector whose preview was not
    approved. Tokens are estimated from bytes. All figures are in the metadata.
    """
    tables = lake.tables()
    fingerprint = current_fingerprint(tables.root)
    with connect(tables, "documents", "scores", "scoring_runs") as connection:
        measured = measured_rates(connection)
        rates = Rates(
            config.bytes_per_token or measured.bytes_per_token, config.tokens_per_second or measured.tokens_per_second
        )
        estimate = rescoring_estimate(
            connection,
            selector_fingerprint=fingerprint,
            rates=rates,
            price_per_device_hour=cost.price_per_device_hour,
        )
    refusal = None if config.confirm else cost.refusal(estimate)
    Approval(fingerprint, datetime.now(UTC).isoformat(), estimate, approved=refusal is None).publish(tables.root)
    metadata = {
        "selector_fingerprint": fingerprint,
        **_known(asdict(estimate)),
        "price_per_device_hour": cost.price_per_device_hour,
        **_known({"spending_limit": cost.spending_limit, **asdict(rates)}),
        "confirmed": config.confirm,
    }
    if refusal is not None:
        raise dg.Failure(
            f"{refusal}; materialize rescoring_preview with confirm: true to go ahead",
            metadata=metadata,
            allow_retries=False,
        )
    context.log.info(f"{estimate.documents:,} documents in {estimate.partitions:,} shards would be scored")
    return dg.MaterializeResult(metadata=metadata)


def _throughput_and_cost(tables: Lake, selector_fingerprint: str, cost: CostResource) -> dict[str, Any]:
    with connect(tables, "scoring_runs") as connection:
        history = scoring_history(connection, selector_fingerprint=selector_fingerprint)
    if not len(history):
        return {}
    tokens, seconds = (history[name].to_numpy() for name in ("tokens_scored", "seconds"))
    price = cost.price_per_device_hour
    picture = throughput_and_cost(history["domain"].to_pylist(), tokens, seconds, price_per_device_hour=price)
    together = cost_of(int(tokens.sum()), float(seconds.sum()), price_per_device_hour=price)
    return {"throughput_and_cost": picture, **asdict(together)}


def _predicted_against_actual(tables: Lake, selector_fingerprint: str) -> dict[str, Any]:
    approval = read_approval(tables.root, selector_fingerprint)
    if approval is None:
        return {}
    with connect(tables, "scoring_runs") as connection:
        figures = predicted_and_actual(connection, approval)
    rows = [
        {"of": name, "predicted": _shown(predicted), "actual": _shown(actual)}
        for name, (predicted, actual) in figures.items()
    ]
    return {"predicted_against_actual": records(rows)}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: "unknown" if value is None else value for name, value in values.items()}


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.6g}"
