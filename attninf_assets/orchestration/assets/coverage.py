"""The asset `score_coverage`: which scores are current, how far the rest is, and what all of it has cost."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.external import scoring_runs
from attninf_assets.orchestration.assets.scores import attention_influence_scores
from attninf_assets.orchestration.assets.selector import retrieval_heads
from attninf_assets.orchestration.connections.resources import CorpusResource, CostResource, LakeResource
from attninf_assets.orchestration.display.catalog import OWNERS
from attninf_assets.orchestration.display.metadata import as_json, records, rounded
from attninf_assets.orchestration.display.plots import coverage_bars, throughput_and_cost
from attninf_assets.orchestration.display.progress import coverage_story
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.orchestration.runs.shard_work import INDEXING, SCORING, failure_reasons, work_on_shards
from attninf_assets.scores.cost import (
    cost_of,
    predicted_and_actual,
    read_approval,
    scoring_history,
)
from attninf_assets.scores.coverage import (
    SHARD_STATES,
    WorkOnShards,
    partition_states,
    shard_states,
    states_by_domain,
)
from attninf_assets.scores.progress import DomainProgress, ScoringProgress, earlier_selectors, scoring_progress
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake

_MOST_FAILURES = 50  # that are shown with their reasons


@dg.asset(
    deps=[raw_corpus, retrieval_heads, attention_influence_scores, scoring_runs],
    group_name="scores",
    owners=OWNERS,
    kinds={"duckdb"},
)
def score_coverage(
    context: dg.AssetExecutionContext, corpus: CorpusResource, lake: LakeResource, cost: CostResource
) -> dg.MaterializeResult:
    """How far the scoring of the corpus is, and what it has cost: shards by domain and state, documents, tokens, time.

    It shows what is left to score before a selection is complete, looked up in the tables themselves, and in what runs
    have staged; where the rescoring was previewed, predicted cost stands beside actual cost. All is in the metadata.

    Current: every document is scored by the selector in use. Running: not yet, and in a run, at work or in a queue.
    Stale: some are not. Missing: none is. Failed: the last indexing failed, or the last scoring of what is not current;
    the reasons stand beside it. Not indexed: landed and registered, never indexed. Source gone: the file is no longer
    there, whatever its scores.

    The sensor `coverage_watch` renews it every few minutes while shards are indexed or scored, and once afterwards.
    """
    tables = lake.tables()
    fingerprint = current_fingerprint(tables.root)
    shards = survey(context.instance, corpus, tables, selector_fingerprint=fingerprint)
    unfinished = shards.not_current()
    with connect(tables, "documents", "scores", "scoring_runs") as connection:
        earlier = earlier_selectors(connection, selector_fingerprint=fingerprint)
        progress = scoring_progress(
            connection,
            tables.root,
            selector_fingerprint=fingerprint,
            unfinished=set(unfinished),
            n_at_work=shards.work.n_at_work,
        )
    failures = shards.failures(context.instance, at_most=_MOST_FAILURES)
    total = Counter(shards.states.values())
    by_domain = {
        domain: {state: counts[state] for state in SHARD_STATES}
        for domain, counts in states_by_domain(shards.states).items()
    }
    counted = ", ".join(f"{total[state]:,} {state}" for state in SHARD_STATES if total[state]) or "no shards"
    context.log.info(f"shards: {counted}; {progress}")
    return dg.MaterializeResult(
        metadata={
            "state": dg.MetadataValue.md(
                coverage_story(
                    progress,
                    selector=fingerprint,
                    earlier=earlier,
                    counted=counted,
                    now=datetime.now(UTC),
                    price_per_device_hour=cost.price_per_device_hour,
                )
            ),
            **({"failed": records(failures)} if failures else {}),
            "coverage": records(_by_domain(by_domain, progress)),
            "chart": coverage_bars(by_domain),
            **{f"shards_{state.replace(' ', '_')}": total[state] for state in SHARD_STATES},
            "shards": len(shards.states),
            **_in_flight(progress),
            "unfinished": as_json(unfinished[:200]),
            "selector_fingerprint": fingerprint,
            "earlier_selectors": as_json(earlier),
            **_throughput_and_cost(tables, fingerprint, cost),
            **_predicted_against_actual(tables, fingerprint),
        }
    )


@dataclass(frozen=True)
class Survey:
    """The state of every registered or stored shard, by key, and what is known of the runs."""

    states: Mapping[str, str]
    work: WorkOnShards

    def not_current(self) -> list[str]:
        """The shards that are not current, those that failed first."""
        rest = (key for key, state in self.states.items() if state != "current")
        return sorted(rest, key=lambda key: (self.states[key] != "failed", key))

    def failures(self, instance: dg.DagsterInstance, *, at_most: int) -> list[dict[str, str]]:
        """Shards that failed, with the step that did and the reason; of a shard where both did, the indexing."""
        failed = [key for key in self.not_current() if self.states[key] == "failed"][:at_most]
        indexing = [key for key in failed if key in self.work.indexing_failed]
        scoring = [key for key in failed if key not in self.work.indexing_failed]
        reasons = failure_reasons(instance, INDEXING, indexing) | failure_reasons(instance, SCORING, scoring)
        steps = dict.fromkeys(indexing, "indexing") | dict.fromkeys(scoring, "scoring")
        return [{"shard": key, "failed": steps[key], "reason": reasons[key]} for key in failed]


def survey(instance: dg.DagsterInstance, corpus: CorpusResource, tables: Lake, *, selector_fingerprint: str) -> Survey:
    """The states from the tables, the corpus's files and what the instance knows."""
    with connect(tables, "documents", "scores") as connection:
        stored = partition_states(connection, selector_fingerprint=selector_fingerprint)
    work = work_on_shards(instance)
    states = shard_states(
        stored,
        registered=instance.get_dynamic_partitions(CORPUS_SHARDS),
        landed={shard.key for shard in corpus.open().shards()},
        work=work,
    )
    return Survey(states, work)


def _by_domain(by_domain: Mapping[str, Mapping[str, int]], progress: ScoringProgress) -> list[dict[str, Any]]:
    """A row for each domain: its shards by state, its documents and tokens, done and left."""
    of_domain = {domain.domain: domain for domain in progress.domains}
    rows = []
    for domain, counts in by_domain.items():
        found = of_domain.get(domain, DomainProgress(domain, 0, 0, 0, 0))
        rows.append(
            {
                "domain": domain,
                **counts,
                "shards": sum(counts.values()),
                "documents": found.documents,
                "documents_current": found.documents_done,
                "tokens_current": found.tokens_done,
                "tokens_left": "unknown" if found.tokens_left is None else f"{found.tokens_left:,}",
            }
        )
    return rows


def _in_flight(progress: ScoringProgress) -> dict[str, Any]:
    """The figures of the story as numbers, which Dagster plots over time; what is not known is left out."""
    figures = {
        "documents": progress.documents,
        "documents_scored": progress.documents_done,
        "documents_staged": progress.documents_staged,
        "tokens_scored": progress.tokens_done,
        "tokens_left": progress.tokens_left,
        "device_hours_left": progress.device_hours_left,
        "hours_left": None if progress.seconds_left is None else progress.seconds_left / 3600,
        "runs_at_work": progress.n_at_work,
    }
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
    return {name: value for name, value in rounded.items() if value is not None}


def _throughput_and_cost(tables: Lake, selector_fingerprint: str, cost: CostResource) -> dict[str, Any]:
    with connect(tables, "scoring_runs") as connection:
        history = scoring_history(connection, selector_fingerprint=selector_fingerprint)
    if not len(history):
        return {}
    tokens, seconds = (history[name].to_numpy() for name in ("tokens_scored", "seconds"))
    price = cost.price_per_device_hour
    picture = throughput_and_cost(history["domain"].to_pylist(), tokens, seconds, price_per_device_hour=price)
    together = cost_of(int(tokens.sum()), float(seconds.sum()), price_per_device_hour=price)
    return {"throughput_and_cost": picture, **{name: rounded(value) for name, value in asdict(together).items()}}


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


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.6g}"
