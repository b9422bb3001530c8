"""The entry point of Dagster, which lists every asset, check, job, schedule, sensor and resource by name."""

import dagster as dg

from attninf_assets.orchestration.assets.checks import (
    CHECKS,
    every_selection_is_defined,
    every_shard_is_current,
    selection_waits_for_no_shard,
)
from attninf_assets.orchestration.assets.confounders import score_confounders
from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.coverage import score_coverage
from attninf_assets.orchestration.assets.explaining import explain_document
from attninf_assets.orchestration.assets.external import (
    mix_definition,
    pretrained_model,
    quarantine,
    scoring_runs,
    selection_definitions,
    source_files,
)
from attninf_assets.orchestration.assets.features import document_features, near_duplicates
from attninf_assets.orchestration.assets.maintenance import lake_maintenance, maintenance_job, nightly_maintenance
from attninf_assets.orchestration.assets.mixture import select_and_mix_job, training_corpus
from attninf_assets.orchestration.assets.preview import rescoring_preview
from attninf_assets.orchestration.assets.scores import attention_influence_scores
from attninf_assets.orchestration.assets.selection import score_thresholds, selected_subset
from attninf_assets.orchestration.assets.selector import (
    build_selector_job,
    retrieval_heads,
    retrieval_probes,
    selector_model,
)
from attninf_assets.orchestration.assets.what_if import score_bands, selection_what_if
from attninf_assets.orchestration.automation.alerts import alert_sensors
from attninf_assets.orchestration.automation.coverage_watch import coverage_job, coverage_watch
from attninf_assets.orchestration.automation.feature_renewal import feature_renewal, with_feature_conditions
from attninf_assets.orchestration.automation.new_shards import SHARDS_PER_RUN, ingest_job, new_shards
from attninf_assets.orchestration.automation.rescoring import rescoring_sensors, with_conditions
from attninf_assets.orchestration.automation.retirement import retire_shards
from attninf_assets.orchestration.automation.selections import retire_selections, selections_sensor
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.orchestration.display.code_references import with_code_references
from attninf_assets.orchestration.runs.liveness import living_in_process_executor


@dg.definitions
def definitions() -> dg.Definitions:
    """Everything that Dagster loads of this project; assets stand in the order of the method."""
    settings = read_settings()
    resources = resources_from(settings)
    several = dg.BackfillPolicy.multi_run(max_partitions_per_run=settings.partitions_per_run)
    many = dg.BackfillPolicy.multi_run(max_partitions_per_run=max(settings.partitions_per_run, SHARDS_PER_RUN))
    assets = [
        raw_corpus.with_attributes(backfill_policy=many),
        document_features.with_attributes(backfill_policy=many),
        near_duplicates,
        selector_model,
        retrieval_probes,
        retrieval_heads,
        rescoring_preview,
        attention_influence_scores.with_attributes(backfill_policy=several),
        score_confounders,
        score_coverage,
        score_thresholds,
        selected_subset,
        score_bands,
        selection_what_if,
        training_corpus,
        lake_maintenance,
    ]
    external = [
        source_files(resources["corpus"]),
        pretrained_model(resources["selector"]),
        quarantine,
        scoring_runs,
        selection_definitions(resources["selections"]),
        mix_definition(resources["selections"]),
    ]
    rescored = with_conditions(assets, settings.rescore, previewed=settings.budget is not None)
    automated = with_feature_conditions(rescored)
    return dg.Definitions(
        assets=[*external, *with_code_references(automated)],
        asset_checks=[*CHECKS, every_shard_is_current, selection_waits_for_no_shard, every_selection_is_defined],
        jobs=[
            ingest_job,
            build_selector_job,
            select_and_mix_job,
            coverage_job,
            explain_document,
            maintenance_job,
            retire_shards,
            retire_selections,
        ],
        schedules=[nightly_maintenance],
        sensors=[
            new_shards,
            coverage_watch,
            feature_renewal,
            selections_sensor,
            *rescoring_sensors(settings.rescore),
            *alert_sensors(settings.alert_webhook),
        ],
        resources=resources,
        executor=living_in_process_executor,  # a process per run: a step of its own would load everything again
    )
