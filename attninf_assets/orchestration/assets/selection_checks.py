"""Asset checks of one named selection at a time; each looks in the tables themselves."""

import dagster as dg

from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.display.metadata import as_json
from attninf_assets.orchestration.runs.partition_runs import PartitionCheck
from attninf_assets.orchestration.runs.partitions import selections
from attninf_assets.selection.eligible import connect_for
from attninf_assets.selection.thresholds import stored_definitions
from attninf_assets.selection.verification import domains_not_as_counted, domains_not_at_their_fraction
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect

THRESHOLDS, SELECTED = dg.AssetKey("score_thresholds"), dg.AssetKey("selected_subset")


def thresholds_keep_the_asked_fraction(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """In each domain, the documents at or above the threshold reach what is asked for, and without the last do not."""
    tables = lake.tables()
    with connect_for(tables, stored_definitions(tables, key), "thresholds") as connection:
        wrong = domains_not_at_their_fraction(connection, selection=key)
    n_domains = tables.count("thresholds", where={"selection": key})
    return dg.AssetCheckResult(
        passed=n_domains > 0 and not wrong,
        metadata={"domains": n_domains, "wrong_domains": as_json(wrong)},
    )


def selection_is_what_the_thresholds_say(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """In each domain, as many documents and tokens are selected as the thresholds count, all by the selector in use."""
    tables, fingerprint = lake.tables(), current_fingerprint(lake.storage_root())
    with connect(tables, "selected_subset", "thresholds") as connection:
        differing = domains_not_as_counted(connection, selector_fingerprint=fingerprint, selection=key)
    n_domains = tables.count("thresholds", where={"selection": key})
    return dg.AssetCheckResult(
        passed=n_domains > 0 and not differing, metadata={"differing_domains": as_json(differing)}
    )


SELECTION_CHECKS = [
    PartitionCheck(THRESHOLDS, thresholds_keep_the_asked_fraction, selections),
    PartitionCheck(SELECTED, selection_is_what_the_thresholds_say, selections),
]
