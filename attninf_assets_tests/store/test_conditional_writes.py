"""Stores that write over an object although they were asked not to, and stores that do not."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from attninf_assets.orchestration.runs.retries import is_transient
from attninf_assets.store import conditional_writes
from attninf_assets.store.conditional_writes import MARKER, require_conditional_writes
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.faulty_proxy import faulty_proxy
from benchmarks.rigs.tables_of_scores import scores_of


@pytest.fixture(autouse=True)
def _another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional_writes, "_known", set())


@contextmanager
def careless_store(*, answers: int) -> Iterator[tuple[dict[str, str], dict[str, bytes]]]:
    """The options and the objects of a small S3 store that knows no conditions: it writes, or answers 501."""
    objects: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if answers == 200 or "If-None-Match" not in self.headers:
                objects[self.path] = content
                self._answer(200)
            else:
                self._answer(answers)

        def do_GET(self) -> None:
            self._answer(200 if self.path in objects else 404, objects.get(self.path, b""))

        do_HEAD = do_GET

        def _answer(self, status: int, content: bytes = b"") -> None:
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"0"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1", "max_retries": "1"}
        endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield {**keys, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}, objects
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("answers", [200, 501])
def test_a_store_that_does_not_honour_them_is_refused_by_name_before_any_table_is_written(answers: int) -> None:
    with careless_store(answers=answers) as (options, objects):
        lake = Lake(Root.at("s3://lake/x", options))
        for _ in range(2):
            complaint = f"s3://lake/x: the store at {options['AWS_ENDPOINT_URL']} does not honour conditional writes"
            with pytest.raises(ValueError, match=complaint) as refusal:
                lake.replace("scores", scores_of("web", "a", 1))
            assert not is_transient(refusal.value)
        assert not [path for path in objects if "/tables/" in path]


def test_a_store_is_asked_once_for_a_root_and_an_endpoint(s3_root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = conditional_writes._are_honoured

    def asking(root: Root) -> bool:
        asked.append(root.uri)
        return ask(root)

    monkeypatch.setattr(conditional_writes, "_are_honoured", asking)
    Lake(s3_root).replace("scores", scores_of("web", "a", 1))
    Lake(s3_root).replace("scores", scores_of("web", "a", 1))
    conditional_writes._known.clear()  # as in another process
    Lake(s3_root).replace("scores", scores_of("web", "a", 1))
    assert asked == [s3_root.uri]
    endpoint = s3_root.storage_options["AWS_ENDPOINT_URL"]
    assert json.loads(s3_root.read_bytes(MARKER)) == {"endpoint": endpoint}
    with faulty_proxy(s3_root.storage_options) as proxy:
        require_conditional_writes(Root.at(s3_root.uri, proxy.options))
        assert json.loads(s3_root.read_bytes(MARKER)) == {"endpoint": proxy.options["AWS_ENDPOINT_URL"]}
    assert len(asked) == 2


def test_a_store_that_cannot_be_asked_is_an_outage_and_one_that_refuses_us_is_not(s3_root: Root) -> None:
    with faulty_proxy(s3_root.storage_options) as proxy:
        root = Root.at(s3_root.uri, {**proxy.options, "max_retries": "1"})
        for fault in ("503", "unheard"):
            proxy.fault = lambda method, path, number, fault=fault: fault if method == "PUT" else None  # type: ignore[misc]
            with pytest.raises(OSError, match=f"{s3_root.uri}: no conditional write could be tried") as outage:
                require_conditional_writes(root)
            assert is_transient(outage.value)
        proxy.fault = lambda method, path, number: "unanswered" if method == "PUT" and not proxy.faults() else None
        proxy.requests.clear()
        require_conditional_writes(root)
        assert proxy.faults() == 1
    intruder = Root.at(s3_root.uri, {**s3_root.storage_options, "AWS_SECRET_ACCESS_KEY": "a-guessed-secret"})
    with pytest.raises(OSError, match="ACCESS_DENIED") as refusal:
        require_conditional_writes(intruder)
    assert not is_transient(refusal.value)


def test_nothing_is_asked_of_a_local_disk(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    require_conditional_writes(root)
    assert not root.exists("maintenance")
