"""The ATTNINF_* settings, and the resources they make."""

import os
from enum import StrEnum
from pathlib import Path

import dagster as dg
from dagster_aws.s3 import S3Resource

from attninf_assets.orchestration.connections.resources import (
    SAMPLE,
    CorpusResource,
    CostResource,
    LakeResource,
    SelectorResource,
)
from attninf_assets.selector.model_source import HUB_ID

SETTINGS = (
    "ATTNINF_ROOT",
    "ATTNINF_CORPUS",
    "ATTNINF_SELECTOR",
    "ATTNINF_SAMPLE_DIR",
    "ATTNINF_RESCORE",
    "ATTNINF_PARTITIONS_PER_RUN",
    "ATTNINF_DEVICE_HOUR_PRICE",
    "ATTNINF_BUDGET",
    "ATTNINF_ALERT_WEBHOOK",
)


class RescorePolicy(StrEnum):
    """When stale and missing scores are requested."""

    AT_ONCE = "at_once"
    NIGHTLY = "nightly"
    ON_DEMAND = "on_demand"


def resources_from_environment() -> dict[str, dg.ConfigurableResource]:
    """The resources, from ATTNINF_* settings that all have defaults.

    Raises `ValueError` naming the setting where one is unknown, with its value where it is wrong, before any work.
    """
    unknown = sorted(name for name in os.environ if name.startswith("ATTNINF_") and name not in SETTINGS)
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]}; there are {', '.join(SETTINGS)}")
    sample_dir = os.path.expanduser(_setting("ATTNINF_SAMPLE_DIR", ".sample"))
    source = _setting("ATTNINF_SELECTOR", SAMPLE)
    if source != SAMPLE and not Path(source).expanduser().exists() and not HUB_ID.fullmatch(source):
        raise ValueError(
            f"ATTNINF_SELECTOR={source!r}: no such file or directory, and no hub id with revision (org/name@revision)"
        )
    corpus_file = os.path.expanduser(_setting("ATTNINF_CORPUS", SAMPLE))
    if corpus_file != SAMPLE and "://" not in corpus_file and not Path(corpus_file).is_file():
        raise ValueError(f"ATTNINF_CORPUS={corpus_file!r}: no such file")
    s3 = S3Resource(region_name=dg.EnvVar("AWS_REGION").get_value())
    lake = LakeResource(root=_setting("ATTNINF_ROOT", "data"), s3=s3)
    lake.check()
    corpus = CorpusResource(file=corpus_file, sample_dir=sample_dir, lake=lake)
    if corpus_file != SAMPLE and "://" not in corpus_file:
        corpus.config()
    return {
        "s3": s3,
        "lake": lake,
        "corpus": corpus,
        "selector": SelectorResource(source=source, sample_dir=sample_dir),
        "cost": CostResource(
            price_per_device_hour=_amount("ATTNINF_DEVICE_HOUR_PRICE", "0"),
            spending_limit=spending_limit_from_environment(),
        ),
    }


def rescore_policy_from_environment() -> RescorePolicy:
    """When scores are renewed (ATTNINF_RESCORE): at_once unless set. Raises `ValueError` for anything else."""
    value = _setting("ATTNINF_RESCORE", RescorePolicy.AT_ONCE)
    if value not in list(RescorePolicy):
        raise ValueError(f"ATTNINF_RESCORE={value!r}: not one of {', '.join(RescorePolicy)}")
    return RescorePolicy(value)


def spending_limit_from_environment() -> float | None:
    """What a rescoring may cost unconfirmed (ATTNINF_BUDGET), None where that is unset or `unlimited`."""
    return None if _setting("ATTNINF_BUDGET", "unlimited") == "unlimited" else _amount("ATTNINF_BUDGET", "0")


def partitions_per_run_from_environment() -> int:
    """How many partitions a run of a backfill takes at most (ATTNINF_PARTITIONS_PER_RUN): 4 unless set."""
    value = _setting("ATTNINF_PARTITIONS_PER_RUN", "4")
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"ATTNINF_PARTITIONS_PER_RUN={value!r}: not a number of partitions")
    return int(value)


def _amount(name: str, default: str) -> float:
    value = _setting(name, default)
    try:
        amount = float(value)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise ValueError(f"{name}={value!r}: not an amount of money")
    return amount


def _setting(name: str, default: str) -> str:
    value = dg.EnvVar(name).get_value(default)
    assert value is not None
    if not value.strip():
        raise ValueError(f"{name} is set but empty; unset it for the default, {default!r}")
    return value
