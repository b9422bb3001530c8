"""The sensor that renews the features of documents, and what is made of them, and the conditions it acts on.

It asks for nothing that needs a device, and one run at a time of what reads texts, in a pool of its own: no scoring
waits for a feature.
"""

from collections.abc import Sequence

import dagster as dg

from attninf_assets.orchestration.assets.confounders import score_confounders
from attninf_assets.orchestration.assets.features import document_features, near_duplicates
from attninf_assets.orchestration.automation.rescoring import renewed_at_once, renewed_hourly

_RENEWED = {
    document_features.key: renewed_at_once(label="shard_changed"),
    near_duplicates.key: renewed_hourly(label="features_changed"),
    score_confounders.key: renewed_hourly(label="scores_or_features_changed"),
}

feature_renewal = dg.AutomationConditionSensorDefinition(
    "feature_renewal",
    target=dg.AssetSelection.assets(*_RENEWED),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests document_features of every shard that was indexed anew, and, once an hour at most and while "
    "nobody is at work on what they are made of, near_duplicates and score_confounders.\n\nOn from the first start: it "
    "needs no device, reads each text once, and what reads texts is one run at a time.",
)


def with_feature_conditions(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets, with automation conditions on those that the sensor renews, whatever the rescoring policy is."""

    def conditioned(spec: dg.AssetSpec) -> dg.AssetSpec:
        condition = _RENEWED.get(spec.key)
        return spec if condition is None else spec.replace_attributes(automation_condition=condition)

    return [asset.map_asset_specs(conditioned) for asset in assets]
