"""The real system on loopback: daemon, webserver and code server as `make ui` starts them, asked over GraphQL."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

_REPOSITORY = Path(__file__).parents[2]
_LOCATION = {"repositoryName": "__repository__", "repositoryLocationName": "attninf_assets"}
T = TypeVar("T")


def until(what: str, probe: Callable[[], T | None], *, seconds: float = 300) -> T:
    """The first answer of `probe` that is neither empty nor None; `TimeoutError` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := probe():
            return answer
        time.sleep(0.25)
    raise TimeoutError(f"waited {seconds:.0f} s for {what}")


class Live:
    """A running system over the settings of the environment."""

    def __init__(self, home: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.home, self.port, self._process, self._log = home, port, process, log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, what: str, probe: Callable[[], T | None], *, seconds: float = 300) -> T:
        """The first answer of `probe` that is neither empty nor None. Fails with the system's log after `seconds`."""

        def answer() -> T | None:
            assert self._process.poll() is None, f"the system ended: {self._tail()}"
            return probe()

        try:
            return until(what, answer, seconds=seconds)
        except TimeoutError as error:
            raise AssertionError(f"{error}; the log ends: {self._tail()}") from error

    def ask(self, query: str, **variables: Any) -> Any:
        """The `data` of a GraphQL answer; fails on errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def materialize(self, *assets: str, config: Mapping[str, Any], job: str = "__ASSET_JOB") -> str:
        """Launch a run of unpartitioned assets, or of a whole job; its id."""
        selection = {"assetSelection": [{"path": [name]} for name in assets]} if assets else {}
        answer = self.ask(
            """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            params={
                "selector": {**_LOCATION, "pipelineName": job, **selection},
                "runConfigData": {"ops": {name: value for name, value in config.items() if name in assets}},
                "mode": "default",
            },
        )["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def backfill(self, asset: str, keys: Sequence[str]) -> str:
        """Launch a backfill of these partitions; its id."""
        answer = self.ask(
            """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            params={"assetSelection": [{"path": [asset]}], "partitionNames": list(keys)},
        )["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def start_sensor(self, name: str) -> None:
        """Turn a sensor on, as the switch in the UI does."""
        answer = self.ask(
            """mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename } }""",
            selector={**_LOCATION, "sensorName": name},
        )
        assert answer["startSensor"]["__typename"] == "Sensor", answer

    def location_is_loaded(self) -> bool:
        """Whether the webserver answers and has the code location under its name."""
        try:
            answer = self.ask(
                """{ workspaceOrError { ... on Workspace {
                locationEntries { name locationOrLoadError { __typename } } } } }"""
            )
        except OSError:
            return False
        entries = answer["workspaceOrError"]["locationEntries"]
        return [(e["name"], (e["locationOrLoadError"] or {}).get("__typename")) for e in entries] == [
            ("attninf_assets", "RepositoryLocation")
        ]

    def kill(self) -> None:
        """SIGKILL for every process of the system at once, runs included: the machine went down."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def instance(self) -> dg.DagsterInstance:
        """The system's own instance, for looking at its runs and events."""
        return dg.DagsterInstance.from_config(str(self.home))

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-6000:]


def prepare_home(home: Path) -> None:
    """Make `home` a DAGSTER_HOME with the project's instance settings."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(_REPOSITORY / "dagster.yaml", home)


@contextmanager
def live_system(home: Path, *, daemon: bool = True) -> Iterator[Live]:
    """Start the system with the project's instance settings in `home`; end all its processes afterwards.

    Where a system ran in `home` before, this one goes on with its runs. Without `daemon`, only the webserver."""
    prepare_home(home)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / f"system-{port}.log"
    everything = [str(Path(sys.executable).with_name("dg")), "dev"]
    command = everything if daemon else [sys.executable, "-m", "dagster_webserver"]
    command += ["--workspace", "workspace.yaml"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=_REPOSITORY,
            env={**os.environ, "DAGSTER_HOME": str(home), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    live = Live(home, port, process, log)
    try:
        live.wait("the code location", live.location_is_loaded)
        yield live
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
