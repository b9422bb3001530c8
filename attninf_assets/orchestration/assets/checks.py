"""Asset checks of whole tables; each looks in the tables themselves and shares no code with what wrote them."""

from collections import Counter

import dagster as dg

from attninf_assets.mixture.verification import verify_training_corpus
from attninf_assets.orchestration.assets.coverage import Survey, score_coverage, survey
from attninf_assets.orchestration.assets.mixture import training_corpus
from attninf_assets.orchestration.assets.partition_checks import CORPUS_CHECKS, FEATURE_CHECKS, SCORE_CHECKS
from attninf_assets.orchestration.assets.recomputation import RECOMPUTED_SCORES_AGREE
from attninf_assets.orchestration.assets.selection import score_thresholds
from attninf_assets.orchestration.assets.selection_checks import SELECTION_CHECKS
from attninf_assets.orchestration.assets.selector import retrieval_heads
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource, SelectionsResource
from attninf_assets.orchestration.display.metadata import as_json, records, rounded
from attninf_assets.orchestration.runs.partitions import SELECTIONS
from attninf_assets.scores.coverage import SHARD_STATES
from attninf_assets.selection.retirement import stored_selections
from attninf_assets.selector.stored import current_detection, current_fingerprint

_WARN = dg.AssetCheckSeverity.WARN
_NAMED = 50  # shards that a check names


@dg.asset_check(asset=retrieval_heads, blocking=True)
def retrieval_heads_matter(lake: LakeResource) -> dg.AssetCheckResult:
    """Masking the retrieval heads costs the probes far more than the median of equal-sized random sets does."""
    found = current_detection(lake.storage_root())
    evidence = found.evidence
    numbers = {
        "effect_of_retrieval_heads_nats": evidence.effect,
        "median_effect_of_random_sets_nats": evidence.random_effect,
        "answer_loss_base": evidence.base.loss,
        "answer_loss_masked": evidence.reference.loss,
        "token_accuracy_base": evidence.base.token_accuracy,
        "token_accuracy_masked": evidence.reference.token_accuracy,
    }
    return dg.AssetCheckResult(
        passed=evidence.heads_matter,
        metadata={
            **{name: rounded(number) for name, number in numbers.items()},
            "probes_of_evidence": evidence.n_probes,  # a part of those that heads are detected on
            "probes": found.detection.n_probes,
        },
    )


@dg.asset_check(asset=retrieval_heads)
def no_head_dominates(lake: LakeResource) -> dg.AssetCheckResult:
    """No single head alone carries more than half of the effect of masking a set; one that does is named."""
    dominating = current_detection(lake.storage_root()).evidence.dominating
    return dg.AssetCheckResult(
        passed=not dominating, severity=_WARN, metadata={"dominating": as_json(list(dominating))}
    )


@dg.asset_check(asset=training_corpus)
def training_corpus_is_its_manifest(lake: LakeResource) -> dg.AssetCheckResult:
    """Every file is there with the rows and the sha256 the manifest gives it. That nothing else is, is only a warning:
    a killed run's leftovers are in no reader's way, and the next materialization removes them, or repairs damage."""
    found = verify_training_corpus(lake.storage_root())
    return dg.AssetCheckResult(
        passed=not found.faults and not found.leftovers,
        severity=dg.AssetCheckSeverity.ERROR if found.faults else _WARN,
        metadata={
            "faults": as_json(found.faults[:20]),
            "leftovers": as_json(found.leftovers[:20]),
        },
    )


CHECKS = [
    *(check.definition() for check in [*CORPUS_CHECKS, *SCORE_CHECKS, *FEATURE_CHECKS]),
    RECOMPUTED_SCORES_AGREE.definition(),
    retrieval_heads_matter,
    no_head_dominates,
    *(check.definition() for check in SELECTION_CHECKS),
    training_corpus_is_its_manifest,
]


@dg.asset_check(asset=score_coverage)
def every_shard_is_current(
    context: dg.AssetCheckExecutionContext, corpus: CorpusResource, lake: LakeResource
) -> dg.AssetCheckResult:
    """Every shard that is registered is scored by the selector in use, its file is there, and was indexed last time."""
    tables = lake.tables()
    shards = survey(context.instance, corpus, tables, selector_fingerprint=current_fingerprint(tables.root))
    total = Counter(shards.states.values())
    return dg.AssetCheckResult(
        passed=set(total) <= {"current"},
        severity=_WARN,
        metadata={
            "not_current": records(_named(shards, shards.not_current(), context.instance)),
            **{f"shards_{state.replace(' ', '_')}": total[state] for state in SHARD_STATES},
        },
    )


@dg.asset_check(asset=score_thresholds)
def selection_waits_for_no_shard(
    context: dg.AssetCheckExecutionContext, corpus: CorpusResource, lake: LakeResource
) -> dg.AssetCheckResult:
    """No shard holds a selection back: each was indexed, is scored by the selector in use, and did not fail last time.

    With this, a selection is requested by itself; by hand it is refused for the same shards, but for those whose scores
    are current. The shards waited for are named."""
    tables = lake.tables()
    shards = survey(context.instance, corpus, tables, selector_fingerprint=current_fingerprint(tables.root))
    waited_for = [key for key in shards.not_current() if shards.states[key] != "source gone"]
    waited_for += sorted(set(shards.work.scoring_failed).difference(waited_for))
    return dg.AssetCheckResult(
        passed=not waited_for,
        severity=_WARN,
        metadata={
            "waits_for": records(_named(shards, waited_for, context.instance)),
            "shards_waited_for": len(waited_for),
        },
    )


@dg.asset_check(asset=score_thresholds)
def every_selection_is_defined(
    context: dg.AssetCheckExecutionContext, selections: SelectionsResource, lake: LakeResource
) -> dg.AssetCheckResult:
    """Every selection that is registered or stored is defined in the selections file, and the other way round."""
    file = selections.read()
    known = set(context.instance.get_dynamic_partitions(SELECTIONS))
    gone = sorted((known | stored_selections(lake.tables())) - set(file.definitions))
    unregistered = sorted(set(file.definitions) - known)
    return dg.AssetCheckResult(
        passed=not gone and not unregistered,
        severity=_WARN,
        description=f"no longer defined, to be retired: {', '.join(gone)}" if gone else None,
        metadata={"no_longer_defined": as_json(gone), "not_registered": as_json(unregistered), "file": file.place},
    )


def _named(shards: Survey, keys: list[str], instance: dg.DagsterInstance) -> list[dict[str, str]]:
    """The first of these shards, each with its state and, where it failed, the reason."""
    reasons = {row["shard"]: f"{row['failed']}: {row['reason']}" for row in shards.failures(instance, at_most=_NAMED)}
    return [{"shard": key, "state": shards.states[key], "reason": reasons.get(key, "")} for key in keys[:_NAMED]]
