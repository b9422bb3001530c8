"""The table scoring_runs follows the log of scores: nothing is lost, nothing is twice."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from attninf_assets.scores.runs import ScoringRun, complete_scoring_runs
from attninf_assets.store.commits import Commit
from attninf_assets.store.follow import follow
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.crashes import indexed_shard, killed_after_its_commit, update
from attninf_assets_tests.support.faulty_proxy import Fault, faulty_proxy
from benchmarks.rigs.tables_of_scores import run_of, scores_of


def _commit(lake: Lake, shard: str, *, tokens: int = 10) -> int:
    run = ScoringRun("web", shard, "f", 1, 2, 3, tokens, 4.0, "cpu")
    return lake.replace("scores", scores_of("web", shard, 3), where={"domain": "web", "shard": shard}, note=run.note())


def _listed(lake: Lake) -> list[tuple[str, int]]:
    rows = lake.read("scoring_runs", columns=["shard", "scores_version"]).to_pylist()
    return sorted((row["shard"], row["scores_version"]) for row in rows)


def test_what_a_run_cost_that_was_killed_after_its_commit_is_added_by_the_next(root: Root, tmp_path: Path) -> None:
    lake = Lake(root)
    killed, other = (indexed_shard(lake, tmp_path / name, name, n_documents=20) for name in ("killed", "other"))
    killed_after_its_commit(root, killed, tmp_path / "journal")
    committed = lake.version("scores")
    assert _listed(lake) == []
    update(root, other, tmp_path / "journal")
    assert [shard for shard, _ in _listed(lake)] == ["killed", "other"]
    assert update(root, killed, tmp_path / "journal").was_current
    assert _listed(lake)[0] == ("killed", committed)
    (run,) = (row for row in lake.read("scoring_runs").to_pylist() if row["shard"] == "killed")
    assert (run["n_scored"], run["n_resumed"], run["n_reused"], run["device"]) == (20, 0, 0, "cpu")
    assert run["tokens_scored"] > 0 < run["seconds"]


def test_a_row_says_what_was_noted_in_its_commit(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    version = _commit(lake, "a")
    assert complete_scoring_runs(lake) == 1
    assert complete_scoring_runs(lake) == 0
    (row,) = lake.read("scoring_runs").to_pylist()
    assert row.pop("committed_at").timestamp() > 0
    assert row == {
        "domain": "web",
        "shard": "a",
        "selector_fingerprint": "f",
        "n_scored": 1,
        "n_resumed": 2,
        "n_reused": 3,
        "tokens_scored": 10,
        "seconds": 4.0,
        "device": "cpu",
        "scores_version": version,
    }


def test_scores_moved_away_and_made_anew_leave_the_earlier_runs_and_lose_none(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    for _ in range(3):
        _commit(lake, "a")
        complete_scoring_runs(lake)
    (tmp_path / "tables/scores").rename(tmp_path / "moved")
    _commit(lake, "b")
    assert complete_scoring_runs(lake) == 1
    assert _listed(lake) == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
    (tmp_path / "tables/scores").rename(tmp_path / "moved as well")
    (tmp_path / "moved").rename(tmp_path / "tables/scores")
    assert complete_scoring_runs(lake) == 0
    _commit(lake, "c")
    assert complete_scoring_runs(lake) == 1
    assert _listed(lake)[-1] == ("c", 4)


def test_scores_put_back_to_an_earlier_version_are_followed_from_there(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    for _ in range(4):
        _commit(lake, "a")
    complete_scoring_runs(lake)
    for version in (3, 4):
        (tmp_path / f"tables/scores/_delta_log/{version:020}.json").unlink()
    assert complete_scoring_runs(lake) == 0
    _commit(lake, "b")
    assert complete_scoring_runs(lake) == 1
    assert _listed(lake) == [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 3)]


def test_runs_listed_before_commits_had_notes_are_not_listed_again(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    version = lake.replace("scores", scores_of("web", "a", 3), where={"domain": "web", "shard": "a"})
    lake.append("scoring_runs", run_of("web", "a", version), writer="web.a", number=version)
    _commit(lake, "b")
    complete_scoring_runs(lake)
    assert _listed(lake) == [("a", 1), ("b", 2)]


def test_many_that_follow_at_once_add_each_run_once(root: Root) -> None:
    lakes = [Lake(root) for _ in range(4)]

    def work(number: int) -> None:
        for part in range(3):
            _commit(lakes[number], f"{number}-{part}")
            complete_scoring_runs(lakes[number])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert [shard for shard, _ in _listed(lakes[0])] == sorted(f"{n}-{part}" for n in range(4) for part in range(3))


def test_commits_that_note_nothing_are_passed_over_for_good_after_a_while(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    looked_at: list[int] = []

    def nothing(commit: Commit) -> pa.Table:
        looked_at.append(commit.version)
        return TABLES["scoring_runs"].empty_table()

    for few in (10, 50):
        for _ in range(few):
            lake.replace("thresholds", TABLES["thresholds"].empty_table())
        follow(lake, "scoring_runs", source="thresholds", rows_of=nothing)
    assert looked_at == [*range(11), *range(61)]
    follow(lake, "scoring_runs", source="thresholds", rows_of=nothing)
    assert looked_at[72:] == []
    assert len(lake.read("scoring_runs")) == 0


@pytest.mark.parametrize("first", [True, False])
def test_a_commit_whose_answer_is_lost_is_one_run(s3_options: dict[str, str], s3_root: Root, first: bool) -> None:
    with faulty_proxy(s3_options) as proxy:
        lake = Lake(Root.at(s3_root.uri, proxy.options))
        if not first:
            _commit(lake, "a")
            complete_scoring_runs(lake)
        lost: set[str] = set()

        def lose_the_answer(method: str, path: str, number: int) -> Fault | None:
            commit = re.search(r"(\w+/_delta_log/0*[1-9]\d*)\.json", path)
            if method != "PUT" or commit is None or commit[1] in lost or "scores" not in path:
                return None
            lost.add(commit[1])
            return "unanswered"

        proxy.fault = lose_the_answer
        _commit(lake, "a", tokens=99)
        complete_scoring_runs(lake)
        assert lost
        tokens = lake.read("scoring_runs")["tokens_scored"].to_pylist()
        assert sorted(tokens) == [99] if first else [10, 99]
