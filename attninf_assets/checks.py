"""What must hold of the tables, looked up in the tables themselves and not in the code that wrote them."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import dagster as dg
import duckdb

from attninf_assets.assets.corpus import raw_corpus
from attninf_assets.assets.mixture import training_corpus
from attninf_assets.assets.scores import attention_influence_scores
from attninf_assets.assets.selection import score_thresholds, selected_subset
from attninf_assets.assets.selector import retrieval_heads
from attninf_assets.partitions import corpus_shards
from attninf_assets.resources import LakeResource
from attninf_assets.selection.manifest import verify_training_corpus
from attninf_assets.store.query import connect
from attninf_assets.store.selectors import current_selector

MAX_QUARANTINED = 0.05  # of a shard's rows
MAX_WITHOUT_SCORE = 0.01  # of a shard's documents: no tokens, or a loss below 1e-4 nats

_WARN = dg.AssetCheckSeverity.WARN


@contextmanager
def _partition(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, *tables: str
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose views hold the check's partition alone."""
    domain, shard = context.partition_key.split(".")
    with connect(lake.lake(), *tables, where={"domain": domain, "shard": shard}) as connection:
        yield connection


@dg.asset_check(asset=raw_corpus, partitions_def=corpus_shards)
def quarantine_is_small(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """At most 5 % of the shard's rows were refused."""
    with _partition(context, lake, "documents", "quarantine") as connection:
        indexed = _count(connection, "documents")
        reasons = connection.execute(
            "SELECT reason, count(*) FROM quarantine GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10"
        ).fetchall()
        refused = _count(connection, "quarantine")
    return dg.AssetCheckResult(
        passed=refused <= MAX_QUARANTINED * (indexed + refused),
        severity=_WARN,
        metadata={"documents": indexed, "quarantined": refused, "reasons": dg.MetadataValue.json(dict(reasons))},
    )


@dg.asset_check(asset=raw_corpus, partitions_def=corpus_shards)
def document_ids_are_unique(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """No document of the shard has the id of another document of its domain, in this shard or any other."""
    domain, shard = context.partition_key.split(".")
    with connect(lake.lake(), "documents", where={"domain": domain}) as connection:
        repeated = connection.execute(
            "SELECT doc_id, count(*) FROM documents WHERE doc_id IN "
            "(SELECT doc_id FROM documents WHERE shard = $1) GROUP BY 1 HAVING count(*) > 1 LIMIT 10",
            [shard],
        ).fetchall()
    return dg.AssetCheckResult(passed=not repeated, metadata={"repeated": dg.MetadataValue.json(dict(repeated))})


@dg.asset_check(asset=retrieval_heads, blocking=True)
def retrieval_heads_matter(lake: LakeResource) -> dg.AssetCheckResult:
    """Masking the retrieval heads costs the probes far more than the median of equal-sized random sets does."""
    evidence = current_selector(lake.storage_root()).detection.evidence
    return dg.AssetCheckResult(
        passed=evidence.heads_matter,
        metadata={
            "answer_loss_base": evidence.base.loss,
            "answer_loss_masked": evidence.reference.loss,
            "effect_of_retrieval_heads_nats": evidence.effect,
            "median_effect_of_random_sets_nats": evidence.random_effect,
            "token_accuracy_base": evidence.base.token_accuracy,
            "token_accuracy_masked": evidence.reference.token_accuracy,
            "probes": evidence.n_probes,
        },
    )


@dg.asset_check(asset=retrieval_heads)
def no_head_dominates(lake: LakeResource) -> dg.AssetCheckResult:
    """No single head alone carries more than half of the effect of masking a set; one that does is named."""
    dominating = current_selector(lake.storage_root()).detection.evidence.dominating
    return dg.AssetCheckResult(
        passed=not dominating, severity=_WARN, metadata={"dominating": dg.MetadataValue.json(list(dominating))}
    )


@dg.asset_check(asset=attention_influence_scores, partitions_def=corpus_shards)
def every_document_is_scored_once(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """Every indexed document of the shard has exactly one score row, for the text that was indexed; no row is extra."""
    with _partition(context, lake, "documents", "scores", "quarantine") as connection:
        ((unscored, orphaned, repeated),) = connection.execute(
            """
            SELECT (SELECT count(*) FROM documents ANTI JOIN scores USING (doc_id, text_sha256)),
                   (SELECT count(*) FROM scores ANTI JOIN documents USING (doc_id, text_sha256)),
                   (SELECT count(*) - count(DISTINCT doc_id) FROM scores)
            """
        ).fetchall()
        refused = _count(connection, "quarantine")
    return dg.AssetCheckResult(
        passed=unscored == orphaned == repeated == 0,
        metadata={"unscored": unscored, "without_document": orphaned, "repeated": repeated, "quarantined": refused},
    )


@dg.asset_check(asset=attention_influence_scores, partitions_def=corpus_shards)
def losses_are_finite(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """Every loss is a finite number, not negative, and every score that is not null is finite."""
    with _partition(context, lake, "scores") as connection:
        wrong = _count(
            connection,
            "scores WHERE NOT (isfinite(loss_base) AND isfinite(loss_reference) AND loss_base >= 0 "
            "AND loss_reference >= 0 AND (score IS NULL OR isfinite(score)))",
        )
    return dg.AssetCheckResult(passed=wrong == 0, metadata={"documents_with_wrong_losses": wrong})


@dg.asset_check(asset=attention_influence_scores, partitions_def=corpus_shards)
def few_documents_without_score(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """At most 1 % of the shard's documents have a null score: no tokens, or no loss to speak of."""
    with _partition(context, lake, "scores") as connection:
        total = _count(connection, "scores")
        null = _count(connection, "scores WHERE score IS NULL")
    return dg.AssetCheckResult(
        passed=null <= MAX_WITHOUT_SCORE * total, severity=_WARN, metadata={"documents": total, "without_score": null}
    )


@dg.asset_check(asset=attention_influence_scores, partitions_def=corpus_shards)
def one_selector_per_partition(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
    """All scores of the shard are by the selector in use."""
    fingerprint = current_selector(lake.storage_root()).selector.fingerprint
    with _partition(context, lake, "scores") as connection:
        found = [row[0] for row in connection.execute("SELECT DISTINCT selector_fingerprint FROM scores").fetchall()]
    return dg.AssetCheckResult(
        passed=set(found) <= {fingerprint}, metadata={"selector_fingerprints": dg.MetadataValue.json(found)}
    )


@dg.asset_check(asset=score_thresholds)
def thresholds_keep_the_asked_fraction(lake: LakeResource) -> dg.AssetCheckResult:
    """Per domain, what is at or above the threshold reaches the asked fraction; without its last one it does not."""
    with connect(lake.lake(), "scores", "thresholds") as connection:
        counted = connection.execute(
            """
            WITH counted AS (
              SELECT domain, fraction, budget, n_documents, n_selected, tokens_total, tokens_selected, n_tokens,
                     (score, doc_id) >= (threshold_score, threshold_doc_id) AS kept,
                     (score, doc_id) = (threshold_score, threshold_doc_id) AS last
              FROM scores JOIN thresholds USING (domain, selector_fingerprint) WHERE isfinite(score))
            SELECT domain, fraction, budget, (n_documents, n_selected, tokens_total, tokens_selected),
                   (count(*), count_if(kept), sum(n_tokens)::BIGINT, coalesce(sum(n_tokens) FILTER (kept), 0)::BIGINT),
                   (count_if(last), coalesce(sum(n_tokens) FILTER (last), 0)::BIGINT)
            FROM counted GROUP BY ALL ORDER BY domain
            """
        ).fetchall()
    wrong = [
        domain
        for domain, fraction, budget, stored, (documents, kept, tokens, tokens_kept), (n_last, last_tokens) in counted
        for whole, reached, last in [
            (documents, kept, n_last) if budget == "documents" else (tokens, tokens_kept, last_tokens)
        ]
        if stored != (documents, kept, tokens, tokens_kept)
        or n_last != 1
        or not reached - last < Fraction(str(fraction)) * whole <= reached
    ]
    return dg.AssetCheckResult(
        passed=bool(counted) and not wrong,
        metadata={"domains": len(counted), "wrong_domains": dg.MetadataValue.json(wrong)},
    )


@dg.asset_check(asset=selected_subset)
def selection_is_what_the_thresholds_say(lake: LakeResource) -> dg.AssetCheckResult:
    """Per domain, as many documents and tokens are selected as the thresholds count, all by the selector in use."""
    fingerprint = current_selector(lake.storage_root()).selector.fingerprint
    with connect(lake.lake(), "selected_subset", "thresholds") as connection:
        differing = connection.execute(
            """
            SELECT domain FROM thresholds FULL JOIN
              (SELECT domain, count(*) AS n, count(DISTINCT doc_id) AS ids, sum(n_tokens) AS tokens,
                      bool_and(selector_fingerprint = $1) AS one FROM selected_subset GROUP BY 1) AS s USING (domain)
            WHERE n IS DISTINCT FROM n_selected OR ids IS DISTINCT FROM n OR tokens IS DISTINCT FROM tokens_selected
               OR NOT one
            """,
            [fingerprint],
        ).fetchall()
        n_domains = _count(connection, "thresholds")
    return dg.AssetCheckResult(
        passed=n_domains > 0 and not differing,
        metadata={"differing_domains": dg.MetadataValue.json([d for (d,) in differing])},
    )


@dg.asset_check(asset=training_corpus)
def training_corpus_is_its_manifest(lake: LakeResource) -> dg.AssetCheckResult:
    """Every file is there with the rows and the sha256 the manifest gives it, and nothing else is."""
    faults = verify_training_corpus(lake.storage_root())
    return dg.AssetCheckResult(passed=not faults, metadata={"faults": dg.MetadataValue.json(faults[:20])})


def _count(connection: duckdb.DuckDBPyConnection, what: str) -> int:
    (row,) = connection.execute(f"SELECT count(*) FROM {what}").fetchall()
    return int(row[0])


CHECKS = [
    quarantine_is_small,
    document_ids_are_unique,
    retrieval_heads_matter,
    no_head_dominates,
    every_document_is_scored_once,
    losses_are_finite,
    few_documents_without_score,
    one_selector_per_partition,
    thresholds_keep_the_asked_fraction,
    selection_is_what_the_thresholds_say,
    training_corpus_is_its_manifest,
]
