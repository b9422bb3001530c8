"""The automation conditions of each rescoring policy, and the sensor that acts on them.

The conditions follow data versions, so materializing something unchanged asks for nothing, and a change is asked for
once: a partition whose run failed waits for a person, a repaired shard or the next change. Only changes seen while the
sensor is on count; what went stale before is listed by `score_coverage` and renewed by a backfill.
"""

from collections.abc import Sequence

import dagster as dg

from attninf_assets.orchestration.assets.mixture import training_corpus
from attninf_assets.orchestration.assets.preview import rescoring_preview
from attninf_assets.orchestration.assets.scores import attention_influence_scores
from attninf_assets.orchestration.assets.selection import score_thresholds, selected_subset
from attninf_assets.orchestration.connections.settings import RescorePolicy
from attninf_assets.orchestration.runs.selections import DEFINITIONS, MIX_DEFINITION

NIGHTLY_AT = "0 2 * * *"  # UTC

_AUTOMATED = [
    rescoring_preview,
    attention_influence_scores,
    score_thresholds,
    selected_subset,
    training_corpus,
]


def with_conditions(
    assets: Sequence[dg.AssetsDefinition], policy: RescorePolicy, *, previewed: bool
) -> list[dg.AssetsDefinition]:
    """The assets, with automation conditions on those that the policy renews; on demand, as they were given.

    `previewed`: scores wait until a preview of their cost, itself renewed first, has succeeded.
    """
    if policy is RescorePolicy.ON_DEMAND:
        return list(assets)
    rescore = _rescore_nightly() if policy is RescorePolicy.NIGHTLY else _rescore_at_once()
    conditions = {
        attention_influence_scores.key: rescore & _previewed() if previewed else rescore,
        score_thresholds.key: _when_complete(),
        selected_subset.key: _after(score_thresholds),
        training_corpus.key: _after_any_selection(),
    }
    if previewed:
        conditions[rescoring_preview.key] = _after_its_inputs()

    def conditioned(spec: dg.AssetSpec) -> dg.AssetSpec:
        condition = conditions.get(spec.key)
        return spec if condition is None else spec.replace_attributes(automation_condition=condition)

    return [asset.map_asset_specs(conditioned) for asset in assets]


def rescoring_sensors(policy: RescorePolicy) -> list[dg.SensorDefinition]:
    """The sensor that requests what the conditions ask for; an empty list where the policy is on demand.

    It is off until it is turned on in the UI.
    """
    if policy is RescorePolicy.ON_DEMAND:
        return []
    return [
        dg.AutomationConditionSensorDefinition(
            "rescoring",
            target=dg.AssetSelection.assets(*_AUTOMATED),
            minimum_interval_seconds=30,
            default_status=dg.DefaultSensorStatus.STOPPED,
            description="Requests stale and missing scores "
            + ("at once" if policy is RescorePolicy.AT_ONCE else f"at {NIGHTLY_AT} (cron, UTC)")
            + ", and selection and mix once every shard is scored by one selector. Costs device time: off until "
            "turned on.",
        )
    ]


def renewed_at_once(*, label: str) -> dg.AutomationCondition:
    """An input changed, or the asset was never made, and nobody is at work on either."""
    return ((_waiting() | _never_made()) & _idle()).with_label(label)


def renewed_hourly(*, label: str) -> dg.AutomationCondition:
    """The same, once an hour at most: what waits at the full hour is due until it is requested."""
    AC = dg.AutomationCondition
    due = ((_waiting() | _never_made()) & AC.cron_tick_passed("0 * * * *")).since(AC.newly_requested())
    return (due.with_label("due_since_the_hour") & _idle()).with_label(label)


def _changed(inputs: dg.AssetSelection | None = None) -> dg.AutomationCondition:
    """An input, or one of these, has another data version than at the last tick, or is about to be renewed in this."""
    AC = dg.AutomationCondition
    changed = AC.any_deps_match(AC.data_version_changed() | AC.will_be_requested())
    return changed if inputs is None else changed.allow(inputs)


def _changed_before(inputs: dg.AssetSelection) -> dg.AutomationCondition:
    """`_changed`, but not by a run that goes on to renew the asset itself, as the selection's runs do."""
    AC = dg.AutomationCondition
    changed = (AC.data_version_changed() & ~AC.executed_with_root_target()) | AC.will_be_requested()
    return AC.any_deps_match(changed).allow(inputs)


def _waiting_since(changed: dg.AutomationCondition, *, label: str) -> dg.AutomationCondition:
    """An input changed and the renewal was not requested since. A change at the tick after a request counts again: the
    requested run may have read the old input already."""
    return changed.since(dg.AutomationCondition.newly_requested() & ~changed).with_label(label)


def _waiting() -> dg.AutomationCondition:
    return _waiting_since(_changed(), label="selector_or_shard_changed")


def _never_made() -> dg.AutomationCondition:
    AC = dg.AutomationCondition
    return (AC.missing() & ~AC.execution_failed()).with_label("never_made")


def _idle() -> dg.AutomationCondition:
    """Inputs are there and nobody is at work on them or on the asset itself."""
    AC = dg.AutomationCondition
    return ~AC.any_deps_missing() & ~AC.any_deps_in_progress() & ~AC.in_progress()


def _rescore_at_once() -> dg.AutomationCondition:
    return renewed_at_once(label="rescore_at_once")


def _rescore_nightly() -> dg.AutomationCondition:
    """What waits at the appointed instant is due until it is requested, later that night if it cannot be at once."""
    AC = dg.AutomationCondition
    due = ((_waiting() | _never_made()) & AC.cron_tick_passed(NIGHTLY_AT)).since(AC.newly_requested())
    return (due.with_label("due_since_the_night") & _idle()).with_label("rescore_nightly")


def _when_complete() -> dg.AutomationCondition:
    """Scores or the selection's definition changed, and no shard of the corpus is unscored, waiting, failed or at work.

    The documents are read as well, but what becomes of them is waited for in their scores; a shard that was never
    indexed was never scored. The check `selection_waits_for_no_shard` names the shards waited for."""
    AC = dg.AutomationCondition
    scores = dg.AssetSelection.assets(attention_influence_scores)
    inputs = scores | dg.AssetSelection.assets(DEFINITIONS)
    waiting = _waiting_since(_changed(inputs), label="scores_or_definition_changed")
    never_made = _never_made() & AC.any_deps_match(~AC.missing()).allow(scores)
    unfinished = (
        AC.missing().with_label("never_indexed_or_never_scored")
        | AC.in_progress()
        | AC.execution_failed().with_label("failed")
        | _waiting()
    )
    waits_for = AC.any_deps_match(unfinished).allow(scores).with_label("waits_for_a_shard")
    complete = ~waits_for & ~AC.in_progress()
    return ((waiting | never_made) & complete).with_label("every_shard_is_scored_by_one_selector")


def _after(trigger: dg.AssetsDefinition) -> dg.AutomationCondition:
    """This one input changed and is at rest. It stands for all: a new or rescored shard counts once it is selected."""
    inputs = dg.AssetSelection.assets(trigger)
    waiting = _waiting_since(_changed_before(inputs), label="input_changed")
    condition = ((waiting | _never_made()) & _idle()).allow(inputs)
    return condition.with_label(f"after_{trigger.key.to_user_string()}")


def _after_any_selection() -> dg.AutomationCondition:
    """A selection changed, or which of them is mixed, and none is at work. Which one counts only the run reads from the
    selections file: where it is another that changed, the run finds the mix unchanged."""
    AC = dg.AutomationCondition
    selections = dg.AssetSelection.assets(selected_subset)
    inputs = selections | dg.AssetSelection.assets(MIX_DEFINITION)
    waiting = _waiting_since(_changed_before(inputs), label="selection_or_mix_changed")
    some_are_made = AC.any_deps_match(~AC.missing()).allow(selections)
    at_rest = ~AC.any_deps_in_progress().allow(selections) & ~AC.in_progress()
    return ((waiting | _never_made()) & some_are_made & at_rest).with_label("after_any_selection")


def _after_its_inputs() -> dg.AutomationCondition:
    return ((_waiting() | _never_made()) & _idle()).with_label("after_its_inputs")


def _previewed() -> dg.AutomationCondition:
    """The preview is there, went well and is not about to be renewed."""
    AC = dg.AutomationCondition
    outstanding = AC.missing() | AC.in_progress() | AC.execution_failed() | _waiting()
    return (~AC.asset_matches(rescoring_preview.key, outstanding)).with_label("preview_succeeded")
