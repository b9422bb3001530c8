"""What storage does to us, and what is left in the tables: busy servers, lost connections, full disks."""

import io
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from attninf_assets.orchestration.runs.retries import is_transient
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.crashes import SELECTOR, indexed_shard, rows_of, update
from attninf_assets_tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from benchmarks.rigs.tables_of_scores import run_of, scores_of

_WEB_A = {"domain": "web", "shard": "a"}
_HASTY = {"max_retries": "2", "retry_timeout": "5s"}  # a test does not wait as long as a run does


@pytest.fixture
def proxy(s3_options: dict[str, str]) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3_options) as proxy:
        yield proxy


def test_a_run_gets_past_a_server_that_is_busy_or_drops_connections(
    proxy: FaultyProxy, s3_root: Root, tmp_path: Path
) -> None:
    through = Root.at(s3_root.uri, proxy.options)
    lake = Lake(through)
    undisturbed = indexed_shard(lake, tmp_path, "undisturbed", n_documents=60)
    update(through, undisturbed, tmp_path / "journal")
    shard = indexed_shard(lake, tmp_path, "disturbed", n_documents=60)
    kinds: list[Fault] = ["503", "unheard", "unanswered"]
    proxy.fault = lambda method, path, number: kinds[number // 4 % 3] if number % 4 == 0 else None
    result = update(through, shard, tmp_path / "journal")
    assert {fault for _, _, fault in proxy.requests} == {None, *kinds}
    proxy.fault = lambda method, path, number: None
    assert result.n_scored == 60
    assert rows_of(lake, shard).equals(rows_of(lake, undisturbed))
    assert sorted(lake.read("scoring_runs")["shard"].to_pylist()) == ["disturbed", "undisturbed"]


@pytest.mark.parametrize("first", [True, False])
def test_a_commit_whose_answer_is_lost_counts_once(proxy: FaultyProxy, s3_root: Root, first: bool) -> None:
    lake = Lake(Root.at(s3_root.uri, proxy.options))
    lake.replace("scores", scores_of("web", "b", 3), where={"domain": "web", "shard": "b"})
    lake.append("scoring_runs", run_of("web", "b", 1), writer="web.b", number=1)
    if not first:
        lake.replace("scores", scores_of("web", "a", 4, mark="old"), where=_WEB_A)
    lost: set[str] = set()

    def lose_the_answer(method: str, path: str, number: int) -> Fault | None:
        commit = re.search(r"(\w+)/_delta_log/0*\d+\.json", path)
        if method != "PUT" or commit is None or commit[1] in lost:
            return None
        lost.add(commit[1])
        return "unanswered"

    proxy.fault = lose_the_answer
    lake.replace("scores", scores_of("web", "a", 5), where=_WEB_A)
    lake.append("scoring_runs", run_of("web", "a", 2), writer="web.a", number=2)
    assert lost == {"scores", "scoring_runs"}
    rows = lake.read("scores", where=_WEB_A)
    assert sorted(rows["doc_id"].to_pylist()) == [f"web-a-{i}" for i in range(5)]
    assert set(rows["selector_fingerprint"].to_pylist()) == {"f"}
    assert sorted(lake.read("scoring_runs")["shard"].to_pylist()) == ["a", "b"]


def test_a_server_that_stays_busy_is_given_up_with_an_error_that_says_so(proxy: FaultyProxy, s3_root: Root) -> None:
    lake = Lake(Root.at(s3_root.uri, {**proxy.options, **_HASTY}))
    lake.replace("scores", scores_of("web", "a", 3), where=_WEB_A)
    proxy.fault = lambda method, path, number: "503"
    attempts = {
        "reading": lambda: lake.read("scores"),
        "replacing": lambda: lake.replace("scores", scores_of("web", "a", 9), where=_WEB_A),
        "writing": lambda: lake.root.write_bytes("x", b"x"),
    }
    for name, attempt in attempts.items():
        before = len(proxy.requests)
        with pytest.raises(OSError, match=r"503|SLOW_DOWN|SlowDown|educe your request rate") as given_up:
            attempt()
        assert 1 < len(proxy.requests) - before < 30, name
        assert lake.root.storage_options["AWS_SECRET_ACCESS_KEY"] not in str(given_up.value)
    proxy.fault = lambda method, path, number: None
    assert len(lake.read("scores")) == 3


@pytest.mark.parametrize("fault", ["409", "412"])
def test_a_creation_that_another_is_said_to_have_won_is_tried_again(
    proxy: FaultyProxy, s3_root: Root, fault: Fault
) -> None:
    """S3 says 409 while another conditional write is under way, whether that one succeeds or not."""
    lake = Lake(Root.at(s3_root.uri, proxy.options))
    first_commit = "scores/_delta_log/00000000000000000000.json"
    proxy.fault = lambda method, path, number: (
        fault if method == "PUT" and path.endswith(first_commit) and proxy.faults() < 2 else None
    )
    lake.replace("scores", scores_of("web", "a", 3), where=_WEB_A)
    assert proxy.faults() == 2
    assert (len(lake.read("scores")), lake.version("scores")) == (3, 1)


def test_retries_made_in_one_bad_spell_are_not_missing_in_the_next(proxy: FaultyProxy, s3_root: Root) -> None:
    root = Root.at(s3_root.uri, proxy.options)
    root.write_bytes("x", b"x")
    for _ in range(130):
        proxy.requests.clear()
        proxy.fault = lambda method, path, number: "503" if number == 0 else None
        assert root.exists("x")


def _failures(proxy: FaultyProxy, act: Callable[[], object], fault: Fault, *, requests: int) -> Iterator[BaseException]:
    """What `act` raises where the server fails for good from its first request on, from its second on, and so on."""
    for begin in range(requests):
        proxy.requests.clear()
        proxy.fault = lambda method, path, number, begin=begin: fault if number >= begin else None  # type: ignore[misc]
        try:
            act()
        except Exception as error:
            yield error


@pytest.mark.parametrize("fault", ["503", "unheard"])
def test_wherever_a_busy_store_stops_a_write_or_a_query_another_try_is_worth_it(
    proxy: FaultyProxy, s3_root: Root, fault: Fault
) -> None:
    lake = Lake(Root.at(s3_root.uri, {**proxy.options, "max_retries": "1", "retry_timeout": "5s"}))
    lake.replace("scores", scores_of("web", "a", 3), where=_WEB_A)
    new = scores_of("web", "a", 4)
    of_writing = list(_failures(proxy, lambda: lake.replace("scores", new, where=_WEB_A), fault, requests=11))
    proxy.fault = lambda method, path, number: None
    with connect(lake, "scores") as connection:
        query = connection.execute
        of_query = list(_failures(proxy, lambda: query("SELECT sum(score) FROM scores").fetchall(), fault, requests=10))
    assert {type(error).__name__ for error in of_writing} == {"OSError", "DeltaError"}
    assert {type(error).__module__ for error in of_query} == {"_duckdb"}
    assert (len(of_writing), len(of_query)) == (11, 10)
    assert not [error for error in of_writing + of_query if not is_transient(error)]


def test_a_query_over_files_that_are_gone_or_refused_is_not_worth_another_try(
    proxy: FaultyProxy, s3_root: Root
) -> None:
    lake = Lake(Root.at(s3_root.uri, proxy.options))
    lake.replace("scores", scores_of("web", "a", 3), where=_WEB_A)
    for spoil in (
        lambda: proxy.expired.add(proxy.options["AWS_ACCESS_KEY_ID"]),
        lambda: s3_root.delete("tables/scores/domain=web"),
    ):
        with connect(lake, "scores") as connection:
            spoil()
            with pytest.raises(duckdb.Error) as failure:
                connection.execute("SELECT sum(score) FROM scores").fetchall()
        assert not is_transient(failure.value)
        proxy.expired.clear()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_a_clear_error_and_leaves_the_table_as_it_was(small_disk: Path, tmp_path: Path) -> None:
    lake = Lake(Root.at(small_disk))
    shard = indexed_shard(lake, tmp_path, "a", n_documents=60)
    before, version = rows_of(lake, shard), lake.version("scores")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        _fill(stream)
    with pytest.raises(OSError, match="No space left"):
        update(lake.root, shard, tmp_path / "journal")
    with pytest.raises(OSError, match=r"No space left on device to replace .*the table is as it was.*tables/scores"):
        lake.replace("scores", scores_of("web", "a", 5_000), where=_WEB_A)
    assert rows_of(lake, shard).equals(before)
    assert lake.version("scores") == version
    filler.unlink()
    result = update(lake.root, shard, tmp_path / "journal")
    assert result.n_resumed + result.n_scored == len(rows_of(lake, shard)) == 60
    assert set(rows_of(lake, shard)["selector_fingerprint"]) == {SELECTOR.fingerprint}


def _fill(stream: io.FileIO) -> None:
    with suppress(OSError):
        while stream.write(b"\0" * 4096):
            pass
