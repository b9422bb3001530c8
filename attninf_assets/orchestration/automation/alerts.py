"""The sensor that posts failed runs to a chat's webhook."""

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

import dagster as dg
from pydantic import SecretStr

from attninf_assets.orchestration.connections.settings import read_settings

ALERT_WEBHOOK = "ATTNINF_ALERT_WEBHOOK"

_TRIES, _PAUSE, _TIMEOUT = 2, 1.0, 5.0  # seconds; the five runs of a tick stay within a sensor's minute
_LONGEST_REASON = 500
_WILL_RETRY = "dagster/will_retry"  # Dagster's tag of runs that it launches again


class AlertError(Exception):
    """An alert that was not delivered. The message says why and leaves out the address, which is a secret."""


def alert_sensors(webhook: SecretStr | None) -> list[dg.SensorDefinition]:
    """The sensor that reports failed runs, on from the start; none without a webhook."""
    return [] if webhook is None else [alert_on_failure]


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts every failed run to the webhook in ATTNINF_ALERT_WEBHOOK, as Slack, Mattermost and others take "
    "it.\n\nA run that Dagster launches again is passed over: its last try is reported. What cannot be delivered fails "
    "the tick and is not sent later.",
)
def alert_on_failure(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """The alert of one failed run. Raises `AlertError` where it was not delivered."""
    run = context.dagster_run
    if run.tags.get(_WILL_RETRY) == "true":
        return dg.SkipReason(f"run {run.run_id} is launched again")
    webhook = read_settings().alert_webhook
    if webhook is None:
        raise AlertError(f"{ALERT_WEBHOOK} is not set any more")
    post(webhook.get_secret_value(), _message(run, context.get_step_failure_events(), context.failure_event))
    return None


def post(address: str, text: str) -> None:
    """Post `{"text": text}` as JSON; once more where it fails. Raises `AlertError` if it was not taken."""
    if not address.startswith(("https://", "http://")):
        raise AlertError(f"{ALERT_WEBHOOK}: not an http:// or https:// address")
    fault = _fault(address, text)
    for _ in range(_TRIES - 1):
        if fault is None:
            return
        time.sleep(_PAUSE)
        fault = _fault(address, text)
    if fault is not None:
        raise AlertError(f"{ALERT_WEBHOOK}: the alert was not delivered: {fault}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST arrives as a GET without its message."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fault(address: str, text: str) -> str | None:
    """What went wrong, by its kind alone: the errors' own words can hold the address."""
    try:
        request = urllib.request.Request(  # noqa: S310  # the scheme is checked
            address, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=_TIMEOUT):
            return None
    except urllib.error.HTTPError as error:
        return f"HTTP status {error.code}"
    except urllib.error.URLError as error:
        return type(error.reason).__name__
    except (OSError, http.client.HTTPException, ValueError) as error:
        return type(error).__name__


def _message(run: dg.DagsterRun, failed_steps: Any, failure: dg.DagsterEvent) -> str:
    """Which run failed, of what, and why in the words of the first step that did."""
    tags = run.tags
    first, last = (tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    partitions = tags.get("dagster/partition") or (f"{first} to {last}" if first else None)
    of = ", ".join(sorted(key.to_user_string() for key in run.asset_selection or ())) or run.job_name
    of += f"; partition {partitions}" if partitions else ""
    reasons = [f"{step.step_key}: {_reason(step)}" for step in failed_steps] or [failure.message or "no reason given"]
    return f"attninf_assets: run {run.run_id} failed ({of}). {reasons[0][:_LONGEST_REASON]}"


def _reason(step: dg.DagsterEvent) -> str:
    told = step.step_failure_data.user_failure_data
    if told is not None and told.description:
        return told.description.strip()
    error = step.step_failure_data.error
    if error is None:
        return "no error recorded"
    return (error.cause or error).message.strip()
