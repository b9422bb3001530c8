"""What must hold of the tables, looked up in the tables themselves and not in the code that wrote them."""

from collections import Counter
from fractions import Fraction

import dagster as dg

from attninf_assets.mixture.manifest import verify_training_corpus
from attninf_assets.orchestration.assets.coverage import STATES, _states, score_coverage
from attninf_assets.orchestration.assets.mixture import training_corpus
from attninf_assets.orchestration.assets.partition_checks import CORPUS_CHECKS, SCORE_CHECKS
from attninf_assets.orchestration.assets.selection import score_thresholds, selected_subset
from attninf_assets.orchestration.assets.selector import retrieval_heads
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.selector.stored import current_detection, current_fingerprint
from attninf_assets.store.query import connect, count_rows

_WARN = dg.AssetCheckSeverity.WARN


@dg.asset_check(asset=retrieval_heads, blocking=True)
def retrieval_heads_matter(lake: LakeResource) -> dg.AssetCheckResult:
    """Masking the retrieval heads costs the probes far more than the median of equal-sized random sets does."""
    evidence = current_detection(lake.storage_root()).evidence
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
    dominating = current_detection(lake.storage_root()).evidence.dominating
    return dg.AssetCheckResult(
        passed=not dominating, severity=_WARN, metadata={"dominating": dg.MetadataValue.json(list(dominating))}
    )


@dg.asset_check(asset=score_thresholds)
def thresholds_keep_the_asked_fraction(lake: LakeResource) -> dg.AssetCheckResult:
    """Per domain, what is at or above the threshold reaches the asked fraction; without its last one it does not."""
    with connect(lake.tables(), "scores", "thresholds") as connection:
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
    fingerprint = current_fingerprint(lake.storage_root())
    with connect(lake.tables(), "selected_subset", "thresholds") as connection:
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
        n_domains = count_rows(connection, "thresholds")
    return dg.AssetCheckResult(
        passed=n_domains > 0 and not differing,
        metadata={"differing_domains": dg.MetadataValue.json([d for (d,) in differing])},
    )


@dg.asset_check(asset=training_corpus)
def training_corpus_is_its_manifest(lake: LakeResource) -> dg.AssetCheckResult:
    """Every file is there with the rows and the sha256 the manifest gives it, and nothing else is."""
    faults = verify_training_corpus(lake.storage_root())
    return dg.AssetCheckResult(passed=not faults, metadata={"faults": dg.MetadataValue.json(faults[:20])})


CHECKS = [
    *(check.definition() for check in [*CORPUS_CHECKS, *SCORE_CHECKS]),
    retrieval_heads_matter,
    no_head_dominates,
    thresholds_keep_the_asked_fraction,
    selection_is_what_the_thresholds_say,
    training_corpus_is_its_manifest,
]


@dg.asset_check(asset=score_coverage)
def every_shard_is_current(
    context: dg.AssetCheckExecutionContext, corpus: CorpusResource, lake: LakeResource
) -> dg.AssetCheckResult:
    """Every shard that is registered is scored by the selector in use, and its file is there."""
    tables = lake.tables()
    fingerprint = current_fingerprint(tables.root)
    total = Counter(_states(context.instance, corpus, tables, fingerprint).values())
    return dg.AssetCheckResult(
        passed=set(total) <= {"current"},
        severity=dg.AssetCheckSeverity.WARN,
        metadata={f"shards_{state.replace(' ', '_')}": total[state] for state in STATES},
    )
