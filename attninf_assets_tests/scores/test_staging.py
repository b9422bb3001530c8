"""StagedScores: chunks of scores that outlive a killed run."""

import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attninf_assets.scores.staging import STAGED_SCORES, StagedScores, damaged_chunks
from attninf_assets.store.root import Root


def _chunk(*documents: tuple[str, str, int]) -> pa.Table:
    """Documents as (doc_id, text_sha256, second at which it was scored)."""
    rows = [
        {
            "doc_id": doc_id,
            "text_sha256": text,
            "n_tokens": 1,
            "loss_base": 1.0,
            "loss_reference": 2.0,
            "score": float(second),
            "scored_at": datetime.datetime(2026, 1, 1, second=second, tzinfo=datetime.UTC),
        }
        for doc_id, text, second in documents
    ]
    return pa.Table.from_pylist(rows, schema=STAGED_SCORES)


def test_what_was_added_is_read_until_it_is_cleared(root: Root) -> None:
    staged = StagedScores(root, "f1", "web", "a")
    assert staged.read() == STAGED_SCORES.empty_table()
    staged.add(_chunk(("1", "x", 0), ("2", "x", 0)))
    staged.add(_chunk(("3", "x", 0)))
    assert StagedScores(root, "f1", "web", "a").read() == _chunk(("1", "x", 0), ("2", "x", 0), ("3", "x", 0))
    for other in (("f2", "web", "a"), ("f1", "code", "a"), ("f1", "web", "b")):
        assert len(StagedScores(root, *other).read()) == 0
    staged.clear()
    staged.clear()
    assert len(staged.read()) == 0


_DOCUMENTS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 5)), max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(_DOCUMENTS, max_size=4))
def test_every_text_is_read_once_with_its_latest_score(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[list[tuple[str, str, int]]]
) -> None:
    staged = StagedScores(Root.at(tmp_path_factory.mktemp("staging")), "f", "web", "a")
    latest: dict[tuple[str, str], int] = {}
    for chunk in chunks:
        staged.add(_chunk(*chunk))
        for doc_id, text, second in chunk:
            latest[doc_id, text] = max(second, latest.get((doc_id, text), 0))
    expected = _chunk(*((doc_id, text, second) for (doc_id, text), second in sorted(latest.items())))
    assert staged.read() == expected


def test_an_unfinished_file_is_ignored(tmp_path: Path) -> None:
    staged = StagedScores(Root.at(tmp_path), "f", "web", "a")
    staged.add(_chunk(("1", "x", 0)))
    (tmp_path / staged.directory / ".abc.parquet.123.tmp").write_bytes(b"PAR1 half a chunk")
    (tmp_path / staged.directory / ".abc.parquet").write_bytes(b"PAR1 half a chunk")
    assert len(staged.read()) == 1


@pytest.mark.parametrize("cut", [0, 3, -1, -20])
@pytest.mark.parametrize("name", [None, "0123456789abcdef0123456789abcdef.parquet"])
def test_a_damaged_chunk_is_an_error_that_names_it(tmp_path: Path, cut: int, name: str | None) -> None:
    root = Root.at(tmp_path)
    staged = StagedScores(root, "f", "web", "a")
    staged.add(_chunk(("1", "x", 0)))
    (path,) = (tmp_path / staged.directory).iterdir()
    path = path.rename(path.with_name(name or path.name))  # as release 0.1.0 called one, or as today
    assert len(staged.read()) == 1
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=rf"{path.name}: not (a|the) chunk of staged scores.*`attninf repair"):
        staged.read()
    assert [damage.path for damage in damaged_chunks(root)] == [f"{staged.directory}/{path.name}"]


def test_any_bit_of_a_chunk_that_changed_is_noticed(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    staged = StagedScores(root, "f", "web", "a")
    staged.add(_chunk(("1", "x", 0)))
    assert list(damaged_chunks(root)) == []
    (path,) = (tmp_path / staged.directory).iterdir()
    sound = path.read_bytes()
    for at in range(0, len(sound), 7):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
        with pytest.raises(ValueError, match="not the chunk of staged scores that it was"):
            staged.read()


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_names_that_cannot_be_directories_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a directory"):
        StagedScores(Root.at(tmp_path), "f", "web", name)
