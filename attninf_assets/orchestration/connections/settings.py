"""The ATTNINF_* settings and the resources made from them. No other module reads the environment for settings."""

import difflib
import os
from enum import StrEnum
from typing import Annotated, Any

import dagster as dg
from dagster_aws.s3 import S3Resource
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from attninf_assets.corpus.config import load_corpus_config
from attninf_assets.corpus.printable import shortened
from attninf_assets.orchestration.connections.resources import (
    SAMPLE,
    CorpusResource,
    CostResource,
    LakeResource,
    SelectionsResource,
    SelectorResource,
)
from attninf_assets.selection.selections_file import read_selections
from attninf_assets.selector.model_source import HUB_ID
from attninf_assets.store.root import Root
from attninf_assets.store.uris import SecretInUriError, redacted, require_no_secret

__all__ = ["RescorePolicy", "Settings", "read_settings", "resources_from"]

_PREFIX = "ATTNINF_"
_SECRETS = ("alert_webhook",)  # their values are shown nowhere
_WITHOUT = {
    "budget": "unlimited",
    "alert_webhook": "no alerts",
    "selections": "the paper's selection",
}  # what it means not to set them


class RescorePolicy(StrEnum):
    """The policies by which stale and missing scores are requested: at once, every night, or only on demand."""

    AT_ONCE = "at_once"
    NIGHTLY = "nightly"
    ON_DEMAND = "on_demand"


_HomePath = Annotated[str, BeforeValidator(os.path.expanduser)]
_Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """The values of the ATTNINF_* environment variables, each with a default; a field's title says what it must be."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    root: str = Field(default="data", title="a local path or s3://bucket/prefix")
    corpus: _HomePath = Field(default=SAMPLE, title="a corpus file")
    selections: _HomePath | None = Field(default=None, title="a selections file")
    selector: str = Field(default=SAMPLE, title="a model")
    sample_dir: _HomePath = Field(default=".sample", title="a directory")
    rescore: RescorePolicy = Field(default=RescorePolicy.AT_ONCE, title=f"one of {', '.join(RescorePolicy)}")
    partitions_per_run: int = Field(default=4, ge=1, title="a number of partitions")
    device_hour_price: _Money = Field(default=0.0, title="an amount of money")
    budget: _Money | None = Field(default=None, title="an amount of money, or unlimited")  # the spending limit
    alert_webhook: SecretStr | None = Field(default=None, title="a webhook's address")

    @model_validator(mode="before")
    @classmethod
    def _every_name_is_known(cls, values: dict[str, Any]) -> dict[str, Any]:
        """What no setting reads would go unnoticed. Its value is not shown: it may be a secret."""
        known = [_variable(name) for name in cls.model_fields]
        for name in sorted(os.environ):
            if name.upper().startswith(_PREFIX) and name not in known:
                near = difflib.get_close_matches(name[len(_PREFIX) :].lower(), cls.model_fields, n=1)
                hint = f"did you mean {_variable(near[0])}?" if near else f"there are {', '.join(known)}"
                raise ValueError(f"unknown setting {shortened(name)}; {hint}")
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _is_not_empty(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str) and not value.strip():
            name = str(info.field_name)
            default = _WITHOUT.get(name, cls.model_fields[name].default)
            raise ValueError(f"set but empty; unset it for the default, {default}")
        return value

    @field_validator("root", "corpus", "selections", "selector", "sample_dir")
    @classmethod
    def _holds_no_secret(cls, value: str | None) -> str | None:
        """Dagster keeps these in its databases."""
        if value is not None:
            require_no_secret(value)
        return value

    @field_validator("root")
    @classmethod
    def _is_a_root(cls, value: str) -> str:
        Root.at(value)
        return value

    @field_validator("corpus", "selections")
    @classmethod
    def _is_there(cls, value: str | None) -> str | None:
        if value is not None and _is_local(value) and not os.path.isfile(value):
            raise ValueError("no such file")
        return value

    @field_validator("selector")
    @classmethod
    def _is_a_model(cls, value: str) -> str:
        if value != SAMPLE and not os.path.exists(os.path.expanduser(value)) and not HUB_ID.fullmatch(value):
            raise ValueError("no such file or directory, and no hub id with revision (org/name@revision)")
        return value

    @field_validator("alert_webhook")
    @classmethod
    def _is_an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("not an http:// or https:// address")
        return value

    @field_validator("budget", mode="before")
    @classmethod
    def _may_be_unlimited(cls, value: object) -> object:
        return None if value == "unlimited" else value


def read_settings() -> Settings:
    """The settings of this process's environment.

    Raises one `ValueError` that names every wrong setting with its value, or an unknown one, before any work. What may
    be a secret is not shown.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise ValueError("; ".join(map(_problem, error.errors()))) from None


def _problem(details: ErrorDetails) -> str:
    reason = details.get("ctx", {}).get("error")
    if not details["loc"]:
        return str(reason)
    name = str(details["loc"][0])
    reason = reason or f"not {Settings.model_fields[name].title}: {details['msg']}"
    if name in _SECRETS or isinstance(reason, SecretInUriError):
        return f"{_variable(name)}: {shortened(reason)}"
    return f"{_variable(name)}={shortened(redacted(repr(details['input'])))}: {shortened(reason)}"


def _variable(name: str) -> str:
    return f"{_PREFIX}{name.upper()}"


def resources_from(settings: Settings) -> dict[str, dg.ConfigurableResource]:
    """The resources. Raises `ValueError` where a local corpus or selections file is not valid, or a selection names a
    domain that the corpus file does not have; files elsewhere are read by what uses them."""
    domains = load_corpus_config(settings.corpus).domains if _is_local(settings.corpus) else None
    if settings.selections is not None and _is_local(settings.selections):
        selections = read_selections(settings.selections)
        for name in selections.definitions if domains is not None else ():
            selections.require_domains(name, domains or ())
    s3 = S3Resource(region_name=dg.EnvVar("AWS_REGION").get_value())
    lake = LakeResource(root=settings.root, s3=s3)
    return {
        "s3": s3,
        "lake": lake,
        "corpus": CorpusResource(file=settings.corpus, sample_dir=settings.sample_dir, lake=lake),
        "selections": SelectionsResource(file=settings.selections, lake=lake),
        "selector": SelectorResource(source=settings.selector, sample_dir=settings.sample_dir),
        "cost": CostResource(
            price_per_device_hour=settings.device_hour_price,
            spending_limit=settings.budget,
        ),
    }


def _is_local(corpus_file: str) -> bool:
    return corpus_file != SAMPLE and "://" not in corpus_file
