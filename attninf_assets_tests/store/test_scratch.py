"""Scratch directories: gone with their process, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from attninf_assets.mixture.training_corpus import write_training_corpus
from attninf_assets.selector import model_files
from attninf_assets.selector.model_directory import digests_of_files, file_digests
from attninf_assets.selector.model_files import publish_directory
from attninf_assets.store import scratch
from attninf_assets.store.maintenance import sweep
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.scratch import UNFINISHED, held_directory, scratch_directory, sweep_dead
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import scores_of

_IMPORTS = """
import sys, time
from pathlib import Path
import pyarrow as pa
from attninf_assets.mixture.training_corpus import write_training_corpus
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.scratch import UNFINISHED, held_directory
from attninf_assets.store.tables import Lake
root = Root.at(sys.argv[1])
def stop():
    print("here", flush=True)
    time.sleep(600)
    yield
"""
_WORK = {
    "shuffle": "write_training_corpus(stop(), root, n_bytes=1, seed=0)",
    "replace": """Lake(root).replace("scores", pa.RecordBatchReader.from_batches(TABLES["scores"], stop()))""",
    "duckdb": 'with connect(root, "scores"): next(stop())',
    "unfinished": """
with held_directory(Path(root.uri) / "selectors", UNFINISHED) as directory:
    (directory / "config.json").write_bytes(b"{}")
    next(stop())
""",
}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of the test's own, for its processes as well."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    scratch._scratch_of.cache_clear()
    yield directory
    scratch._scratch_of.cache_clear()


@contextmanager
def _at_work(what: str, root: Root) -> Iterator["subprocess.Popen[str]"]:
    """A process in the middle of that work."""
    process = subprocess.Popen(
        [sys.executable, "-c", _IMPORTS + _WORK[what], root.uri], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _again(what: str, root: Root, directory: Path) -> None:
    """The same work, whole."""
    if what == "shuffle":
        write_training_corpus([], root, n_bytes=0, seed=0)
    elif what == "replace":
        rows = scores_of("web", "a", 3)
        Lake(root).replace("scores", pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches()))
    elif what == "duckdb":
        with connect(root, "scores"):
            pass
    else:
        (directory / "model").mkdir(exist_ok=True)
        (directory / "model/config.json").write_text("{}")
        publish_directory(root, directory / "model", f"selectors/{os.urandom(4).hex()}")


@pytest.mark.parametrize("what", _WORK)
def test_what_a_killed_process_left_is_swept_by_the_next_and_what_a_living_one_uses_is_not(
    tmp_path: Path, temporary: Path, what: str
) -> None:
    root = Root.at(tmp_path / "root")
    parent, prefix = (
        (tmp_path / "root/selectors", UNFINISHED) if what == "unfinished" else (temporary, f"attninf-{what}-")
    )
    with _at_work(what, root) as process:
        (used,) = parent.glob(f"{prefix}*")
        (used / "a file").write_text("of some size")
        _again(what, root, tmp_path)
        scratch._scratch_of.cache_clear()
        assert (used / "a file").exists()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (used / "a file").exists()
        _again(what, root, tmp_path)
        assert not used.exists()


def test_maintenance_sweeps_a_model_whose_process_was_killed_at_once(tmp_path: Path) -> None:
    root = Root.at(tmp_path / "root")
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    with _at_work("unfinished", root) as process:
        assert sweep(root, older_than=long_ago, selector_fingerprint=None).half_written == ()
        process.kill()
        process.wait()
        (swept,) = sweep(root, older_than=long_ago, selector_fingerprint=None).half_written
        assert swept.startswith(f"selectors/{UNFINISHED}")
        assert os.listdir(tmp_path / "root/selectors") == []


def test_a_scratch_directory_is_gone_after_its_context_and_after_its_process(tmp_path: Path, temporary: Path) -> None:
    with scratch_directory("replace") as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        assert sweep_dead(temporary, "attninf-replace-") == []
    assert os.listdir(temporary) == []
    code = "from attninf_assets.store.scratch import scratch_of_process as s; assert s('x') == s('x'); print(s('x'))"
    left = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert Path(left).parent == temporary
    assert not Path(left).exists()


def test_a_directory_taken_for_dead_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = scratch.fcntl.flock, list[Path]()

    def late_lock(descriptor: int, operation: int) -> None:
        if not taken:
            taken.extend(tmp_path.glob("x-*"))
            shutil.rmtree(taken[0])
        lock(descriptor, operation)

    monkeypatch.setattr(scratch.fcntl, "flock", late_lock)
    with held_directory(tmp_path, "x-") as directory:
        assert directory.is_dir()
        assert directory not in taken


def test_a_model_put_under_a_local_root_can_be_read_by_others(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    root = Root.at(tmp_path / "root")
    digest = digests_of_files(file_digests(tmp_path / "model")).model
    publish_directory(root, tmp_path / "model", f"selectors/{digest}")
    assert sorted(os.listdir(tmp_path / "root/selectors")) == sorted([digest, "files"])
    assert (tmp_path / "root/selectors" / digest).stat().st_mode & 0o055 == 0o055
    there = model_files.local_directory(root, f"selectors/{digest}", cache=tmp_path)
    assert there == tmp_path / "root/selectors" / digest
