"""Alerts of failed runs, sent to a real server on loopback."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.automation import alerts
from attninf_assets.orchestration.automation.alerts import AlertError, alert_on_failure, post

SECRET = "T0123-do-not-tell"


@dataclass
class Chat:
    """A webhook that keeps what it is sent and answers with the statuses given, then 200."""

    address: str
    statuses: list[int] = field(default_factory=list)
    received: list[tuple[str, str | None, str]] = field(default_factory=list)


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setattr(alerts, "_PAUSE", 0.0)
    found = Chat("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found.received.append((self.path, self.headers["Content-Type"], body))
            status = found.statuses.pop(0) if found.statuses else 200
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.address = f"http://127.0.0.1:{server.server_port}/{SECRET}"
        monkeypatch.setenv("ATTNINF_ALERT_WEBHOOK", found.address)
        yield found
        server.shutdown()


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["web.00001"]))
def broken() -> None:
    raise ValueError("row 7 of <web>: no text")


def failed_run(instance: dg.DagsterInstance, **tags: str) -> dg.RunFailureSensorContext:
    """What the sensor is told of a run that failed."""
    job = dg.Definitions([broken]).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, asset_selection=[broken.key], partition_key="web.00001", tags=tags, raise_on_error=False
    )
    return dg.build_run_status_sensor_context(
        sensor_name="alert_on_failure",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=instance.get_run_by_id(result.run_id),  # type: ignore[arg-type]
    ).for_run_failure()


def test_a_failed_run_is_told_with_its_assets_partition_and_reason(chat: Chat) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        context = failed_run(instance)
        assert alert_on_failure(context) is None
    ((path, kind, body),) = chat.received
    assert (path, kind) == (f"/{SECRET}", "application/json")
    assert json.loads(body) == {
        "text": f"attninf_assets: run {context.dagster_run.run_id} failed (broken; partition web.00001). "
        "broken: ValueError: row 7 of <web>: no text"
    }


def test_a_run_that_is_launched_again_is_passed_over(chat: Chat) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        skipped = alert_on_failure(failed_run(instance, **{"dagster/will_retry": "true"}))
    assert isinstance(skipped, dg.SkipReason)
    assert chat.received == []


def test_a_message_that_was_not_taken_is_sent_once_more(chat: Chat) -> None:
    chat.statuses = [503]
    post(chat.address, "hello")
    assert [json.loads(body) for *_, body in chat.received] == [{"text": "hello"}] * 2


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_fails_the_tick_without_naming_the_address(chat: Chat, status: int) -> None:
    chat.statuses = [status, status]
    with pytest.raises(AlertError, match=f"HTTP status {status}") as raised:
        post(chat.address, "hello")
    assert len(chat.received) == 2
    assert SECRET not in repr(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (f"http://127.0.0.1:1/{SECRET}", "ConnectionRefusedError"),
        (f"http://127.0.0.1:{SECRET}/", "InvalidURL"),
        (f"http://127.0.0.1/{SECRET} with a space", "InvalidURL"),
        (f"file:///{SECRET}", "not an http"),
        (SECRET, "not an http"),
    ],
)
def test_an_address_that_does_not_work_is_not_named(chat: Chat, address: str, reason: str) -> None:
    with pytest.raises(AlertError, match=reason) as raised:
        post(address, "hello")
    assert SECRET not in repr(raised.value)
    assert raised.value.__context__ is None


def test_there_is_no_alert_until_a_webhook_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTNINF_ALERT_WEBHOOK", raising=False)
    assert "alert_on_failure" not in [sensor.name for sensor in definitions().sensors or []]
    monkeypatch.setenv("ATTNINF_ALERT_WEBHOOK", f"https://chat.example/{SECRET}")
    found = {sensor.name: sensor for sensor in definitions().sensors or []}
    assert found["alert_on_failure"].default_status is dg.DefaultSensorStatus.RUNNING
