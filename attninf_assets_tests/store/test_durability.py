import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attninf_assets.store.commits import Commit
from attninf_assets.store.durability import check_recent_commits
from attninf_assets.store.maintenance import maintain
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import run_of, scores_of

_WEB_A = {"domain": "web", "shard": "a"}
_WEB_B = {"domain": "web", "shard": "b"}


_REPLACE = """
import sys
from attninf_assets.scores.staging import STAGED_SCORES, StagedScores
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import scores_of
root = Root.at(sys.argv[1])
rows = scores_of("web", "a", 50)
staging = StagedScores(root, "f", "web", "a")
staging.add(rows.select(STAGED_SCORES.names))
Lake(root).replace("scores", rows, where={"domain": "web", "shard": "a"})
staging.clear()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_data_then_commit_then_directories_reach_the_disk_before_what_was_staged_is_deleted(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    calls = "trace=fsync,unlink,unlinkat,rmdir"
    subprocess.run(
        ["strace", "-f", "-y", "-e", calls, "-o", str(trace), sys.executable, "-c", _REPLACE, str(tmp_path / "root")],
        check=True,
    )
    found = [
        kind
        for line in trace.read_text().splitlines()
        for kind, pattern in {
            "data": r"fsync\(\d+<.*/shard=a/[^/]*\.parquet>",
            "partition": r"fsync\(\d+<.*/shard=a>",
            "commit": r"fsync\(\d+<.*/_delta_log/0+1\.json>",
            "log": r"fsync\(\d+<.*/_delta_log>",
            "cleared": r"unlink(at)?\(.*staging/f/web/a/[0-9a-f]+\.parquet",
        }.items()
        if re.search(pattern, line)
    ]
    order = list(dict.fromkeys(found))
    assert order == ["data", "partition", "commit", "log", "cleared"]


@pytest.mark.parametrize("cut", ["empty", "in a line", "without its last line", "zeros"])
@pytest.mark.parametrize("of", ["replace", "append"])
def test_a_commit_that_a_power_cut_left_unfinished_is_named_at_the_next_opening(
    tmp_path: Path, cut: str, of: str
) -> None:
    lake = Lake(Root.at(tmp_path))
    if of == "replace":
        name = "scores"
        lake.replace(name, scores_of("web", "a", 120), where=_WEB_A)
        lake.replace(name, scores_of("web", "a", 121), where=_WEB_A)
    else:
        name = "scoring_runs"
        for number in range(2):
            lake.append(name, run_of("web", "a", number), writer="a", number=number)
    version = lake.version(name)
    commit = tmp_path / f"tables/{name}/_delta_log/{version:020}.json"
    whole = commit.read_bytes()
    lines = whole.split(b"\n")
    parts = {
        "empty": b"",
        "in a line": whole[:-10],
        "without its last line": b"\n".join(lines[:-1]),
        "zeros": bytes(len(whole)),
    }
    commit.write_bytes(parts[cut])
    moved = tmp_path.with_name(f"{tmp_path.name}-seen-anew")  # no handle of this process knows it
    shutil.copytree(tmp_path, moved)
    with pytest.raises(ValueError, match=rf"table {name}: .*{commit.name} is not a whole commit"):
        Lake(Root.at(moved)).count(name)
    commit.unlink()
    assert Lake(lake.root).version(name) == (version or 0) - 1


@pytest.mark.parametrize("left", [0, 100, None])
def test_a_data_file_that_a_power_cut_left_unfinished_is_named_by_its_next_reader_and_the_rest_can_be_read(
    tmp_path: Path, left: int | None
) -> None:
    here = tmp_path / "here"
    lake = Lake(Root.at(here))
    lake.replace("scores", scores_of("web", "a", 120), where=_WEB_A)
    lake.replace("scores", scores_of("web", "b", 30), where=_WEB_B)
    moved = tmp_path / "moved"
    shutil.copytree(here, moved)
    (file,) = moved.glob("tables/scores/domain=web/shard=a/*.parquet")
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:left])
    found = Lake(Root.at(moved))
    for look in (found.count, found.read):
        with pytest.raises(ValueError, match=rf"tables/scores: damaged: .*{file.name}: .*`attninf repair`"):
            look("scores")
    assert found.count("scores", where=_WEB_B) == 30


def test_an_open_table_looks_at_the_commits_that_others_made_since(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path / "here"))
    lake.replace("scores", scores_of("web", "a", 120), where=_WEB_A)
    assert lake.count("scores") == 120
    (tmp_path / "here/tables/scores/_delta_log/00000000000000000002.json").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00000000000000000002\.json is not a whole commit"):
        lake.count("scores")


@pytest.mark.parametrize("left", [b"", b"PAR1", bytes(5_000), None])
@pytest.mark.parametrize("hint", [b"", b"{}", b"[", b'{"version": 7, "size": 1}', None])
def test_a_checkpoint_that_a_power_cut_left_unfinished_is_no_part_of_its_table(
    tmp_path: Path, left: bytes | None, hint: bytes | None
) -> None:
    lake = Lake(Root.at(tmp_path / "here"))
    for n in (120, 121):
        lake.replace("scores", scores_of("web", "a", n), where=_WEB_A)
    maintain(lake, selector_fingerprint=None)
    lake.replace("scores", scores_of("web", "b", 30), where=_WEB_B)
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "here", moved)
    log = moved / "tables/scores/_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    for file, content in ((checkpoint, left), (log / "_last_checkpoint", hint)):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
    assert Lake(Root.at(moved)).count("scores") == 151
    assert not checkpoint.exists()


def test_a_sound_checkpoint_is_kept_and_so_is_one_that_alone_says_what_it_says(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path / "here"))
    lake.replace("scores", scores_of("web", "a", 120), where=_WEB_A)
    maintain(lake, selector_fingerprint=None)
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "here", moved)
    log = moved / "tables/scores/_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    assert Lake(Root.at(moved)).count("scores") == 120
    assert checkpoint.exists()
    assert (log / "_last_checkpoint").exists()
    checkpoint.write_bytes(b"")
    for commit in log.glob("*.json"):
        commit.unlink()
    check_recent_commits(Root.at(moved), "scores")
    assert checkpoint.exists()


def test_a_commit_says_what_it_added_and_removed(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    lake = Lake(root)
    lake.replace("scores", scores_of("web", "a", 120), where=_WEB_A)
    before = lake.files("scores")
    version = lake.replace("scores", scores_of("web", "a", 121), where=_WEB_A)
    commit = Commit.read(root, "scores", version)
    assert commit is not None
    directory = Path(root.table_uri("scores"))
    assert [str(directory / path) for path in commit.added] == lake.files("scores")
    assert [str(directory / path) for path in commit.removed] == before
    assert all((directory / path).stat().st_size == size for path, size in commit.added.items())
    assert Commit.read(root, "scores", version + 1) is None
