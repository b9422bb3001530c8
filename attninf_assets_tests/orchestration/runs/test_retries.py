"""What is tried again and what is not, on real assets that fail a given number of times."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from deltalake.exceptions import CommitFailedError, DeltaError

from attninf_assets.corpus.documents import BadFileError
from attninf_assets.influence.runtime.device_locks import DevicesBusyError
from attninf_assets.orchestration.runs import retries
from attninf_assets.orchestration.runs.retries import is_transient, transient_faults_retried
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import scores_of


def lost_race() -> Exception:
    error = RuntimeError("lost all attempts to other writers")
    error.__cause__ = CommitFailedError("conflict")
    return error


def attempts(fault: Callable[[], BaseException], *, n_faults: int) -> tuple[bool, int]:
    """Whether an asset that fails so often ends well, and how often it was tried."""
    tried: list[int] = []

    @dg.asset
    @transient_faults_retried
    def flaky(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        tried.append(context.retry_number)
        if len(tried) <= n_faults:
            raise fault()
        return dg.MaterializeResult()

    result = dg.materialize([flaky], raise_on_error=False)
    assert tried == list(range(len(tried)))
    return result.success, len(tried)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0)


@pytest.mark.parametrize(
    "fault",
    [
        lambda: OSError("AWS Error NETWORK_CONNECTION during HeadObject"),
        lambda: OSError("AWS Error SLOW_DOWN during PutObject operation (HTTP status 503)"),
        lambda: ConnectionResetError(104, "reset by peer"),
        lambda: TimeoutError("timed out"),
        lambda: CommitFailedError("conflict"),
        lambda: DevicesBusyError("all 2 devices are in use"),
        lambda: DeltaError("Failed to parse parquet: External: Generic S3 error: Error performing PUT: 503 Slow Down"),
        lambda: ExceptionGroup("two partitions", [ValueError("row 7"), ConnectionResetError(104, "reset by peer")]),
        lost_race,
    ],
)
def test_transient_faults_are_tried_again(fault: Callable[[], BaseException]) -> None:
    assert attempts(fault, n_faults=2) == (True, 3)


def test_a_fault_that_stays_fails_after_three_retries() -> None:
    assert attempts(lambda: OSError("storage is down"), n_faults=99) == (False, 4)


@pytest.mark.parametrize(
    "fault",
    [
        lambda: ValueError("row 7 is no longer document 'x'"),
        lambda: FileNotFoundError(2, "no such file"),
        lambda: PermissionError(13, "denied"),
        lambda: PermissionError("denied, without a number"),
        lambda: FileNotFoundError("s3://lake/x, without a number"),
        lambda: OSError("Generic LocalFileSystem error: Unable to open file /x: Permission denied (os error 13)"),
        lambda: OSError("Cannot open '/x'. Detail: [errno 2] No such file or directory"),
        lambda: DeltaError("Generic S3 error: Error performing PUT: 403 Forbidden"),
        lambda: DeltaError("Generic LocalFileSystem error: Unable to create dir /x: Permission denied (os error 13)"),
        lambda: DeltaError("Invalid data: a row lies outside the predicate"),
        lambda: OSError(28, "the disk is full"),
        lambda: OSError(122, "quota exceeded"),
        lambda: OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"),
        lambda: OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body."),
        lambda: OSError("AWS Error UNKNOWN (HTTP status 403) during HeadObject operation"),
        lambda: OSError("Server returned non-2xx status code 403 Forbidden"),
        lambda: AssertionError("every indexed document has a score row"),
        lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        lambda: dg.Failure("refused", allow_retries=False),
    ],
)
def test_lasting_faults_are_not_tried_again(fault: Callable[[], BaseException]) -> None:
    assert attempts(fault, n_faults=1) == (False, 1)


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[None]:
    """A user for whom permissions count, where the tests run as one for whom they do not."""
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents[: len(tmp_path.parents) - 2]):
        folder.chmod(folder.stat().st_mode | 0o755)
    os.chown(tmp_path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_not_tried_again_whichever_library_meets_them(s3_root: Root, wrong: str) -> None:
    root = Root.at(s3_root.uri, {**s3_root.storage_options, wrong: "wrong"})
    attempts: list[Callable[[], object]] = [
        lambda: Lake(root).read("scores"),
        lambda: root.read_bytes("x"),
        lambda: root.write_bytes("x", b"x"),
        lambda: root.list("tables"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match=r"AWS Error|403 Forbidden") as refusal:
            attempt()
        assert not is_transient(refusal.value)


def test_a_folder_that_may_not_be_read_or_written_is_not_tried_again_whichever_library_meets_it(
    tmp_path: Path, nobody: None
) -> None:
    lake = Lake(Root.at(tmp_path / "root"))
    lake.replace("scores", scores_of("web", "a", 1))
    lake.root.write_bytes("y", b"y")
    attempts: dict[str, Callable[[], object]] = {
        "tables/scores/_delta_log": lambda: Lake(lake.root).read("scores"),
        "tables/scores/domain=web/shard=a": lambda: Lake(lake.root).read("scores"),
        "tables": lambda: lake.replace("thresholds", TABLES["thresholds"].empty_table()),
        "y": lambda: lake.root.read_bytes("y"),
        "": lambda: lake.root.write_bytes("x", b"x"),
    }
    for path, attempt in attempts.items():
        place = Path(lake.root.uri, path)
        mode = place.stat().st_mode
        place.chmod(0o555 if path in {"", "tables"} else 0)
        try:
            with pytest.raises(Exception, match="ermission denied") as refusal:
                attempt()
        finally:
            place.chmod(mode)
        assert not is_transient(refusal.value), path


def test_what_is_waited_for_is_said_each_time(capfd: pytest.CaptureFixture[str]) -> None:
    assert attempts(lambda: OSError("storage is down"), n_faults=99) == (False, 4)
    told = capfd.readouterr().err
    assert [f"OSError: storage is down; tried again in 0 s, {n} of 3 times" in told for n in range(1, 6)] == [
        *[True] * 3,
        *[False] * 2,
    ]


def test_every_asset_that_stores_something_is_tried_again() -> None:
    from attninf_assets.definitions import definitions

    names = {"raw_corpus", "selector_model", "retrieval_probes", "retrieval_heads", "attention_influence_scores"}
    names |= {"score_thresholds", "selected_subset", "training_corpus"}
    wrapped = {
        asset.key.to_user_string()
        for asset in definitions().resolve_asset_graph().assets_defs
        if asset.is_executable and hasattr(asset.op.compute_fn.decorated_fn, "__wrapped__")  # type: ignore[union-attr]
    }
    assert wrapped >= names


def test_a_bad_file_ends_the_run_at_once_with_file_row_and_reason() -> None:
    tries: list[int] = []

    @dg.asset
    @transient_faults_retried
    def mix(context: dg.AssetExecutionContext) -> None:
        tries.append(1)
        raise BadFileError("/corpus/b.jsonl: row 7 is no longer document 'x'", uri="/corpus/b.jsonl", row=7)

    result = dg.materialize([mix], raise_on_error=False)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    told = failed.step_failure_data.user_failure_data
    assert told is not None
    assert {name: value.value for name, value in told.metadata.items()} == {
        "file": "/corpus/b.jsonl",
        "row": 7,
        "reason": "/corpus/b.jsonl: row 7 is no longer document 'x'",
    }
    assert tries == [1]
