"""The index of a shard: exact, and with a digest that changes when and only when the content does."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.corpus.config import FORMATS
from attninf_assets.corpus.documents import Document
from attninf_assets.corpus.indexing import IndexedShard, index_shard
from attninf_assets.corpus.printable import printable
from attninf_assets.corpus.readers import read_shard
from attninf_assets.store.schemas import TABLES
from attninf_assets_tests.support.source_files import shard_of, write_rows

_rows = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.sampled_from(["", " ", "a", "b"]) | st.text(max_size=5),
            "id": st.sampled_from("abcdef"),
        }
    ),
    min_size=1,
    max_size=12,
)


def _indexed(
    rows: list[dict[str, object]], *, format: str = "jsonl", elsewhere: set[str] | None = None
) -> IndexedShard:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        write_rows(path, rows, format=format)
        alone = index_shard(shard_of(path, format=format, id_column="id"), version="7-9")
        return alone.without(dict.fromkeys(elsewhere or (), "other"))


@given(rows=_rows, elsewhere=st.sets(st.sampled_from("abcdef")), format=st.sampled_from(FORMATS))
def test_every_row_is_in_documents_or_quarantine_exactly_once(
    rows: list[dict[str, object]], elsewhere: set[str], format: str
) -> None:
    index = _indexed(rows, format=format, elsewhere=elsewhere)
    accepted, refused = index.documents["source_row"].to_pylist(), index.quarantine["source_row"].to_pylist()
    assert accepted == sorted(accepted)
    assert refused == sorted(refused)
    assert sorted(accepted + refused) == list(range(len(rows)))
    assert not set(index.documents["doc_id"].to_pylist()) & elsewhere


@given(rows=_rows, elsewhere=st.sets(st.sampled_from("abcdef")))
def test_the_index_agrees_with_a_plain_reading(rows: list[dict[str, object]], elsewhere: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        write_rows(path, rows, format="jsonl")
        shard = shard_of(path, format="jsonl", id_column="id")
        read = list(read_shard(shard))
        index = index_shard(shard, version="7-9").without(dict.fromkeys(elsewhere, "other"))
    kept = [row for row in read if isinstance(row, Document) and row.doc_id not in elsewhere]
    refused = {row.source_row: getattr(row, "reason", None) for row in read if row not in kept}
    assert index.documents.to_pylist() == [
        {
            "doc_id": row.doc_id,
            "domain": "web",
            "shard": "shard",
            "source_uri": str(path),
            "source_row": row.source_row,
            "text_sha256": row.text_sha256,
            "n_bytes": len(row.text.encode()),
            "source_version": "7-9",
        }
        for row in kept
    ]
    assert index.quarantine.to_pylist() == [
        {
            "domain": "web",
            "shard": "shard",
            "source_uri": str(path),
            "source_row": row,
            "reason": reason or f"doc_id {rows[row]['id']!r} is a duplicate of a document in another shard",
            "source_version": "7-9",
            "doc_id": rows[row]["id"],
            "held_by": None if reason else "other",
            "excerpt": (printable(rows[row]["text"]) if rows[row]["text"] else None) if reason else None,
        }
        for row, reason in sorted(refused.items())
    ]
    assert index.n_bytes == sum(len(row.text.encode()) for row in kept)
    assert (index.n_documents, index.n_refused) == (len(kept), len(refused))


def test_the_tables_have_the_schemas_of_the_store() -> None:
    for text in ("a", ""):
        index = _indexed([{"text": text, "id": "a"}])
        for table, name in ((index.documents, "documents"), (index.quarantine, "quarantine")):
            assert table.schema.equals(TABLES[name], check_metadata=True)
            table.validate(full=True)


def test_a_large_shard_is_indexed_across_batches() -> None:
    rows: list[dict[str, object]] = [{"text": "" if i % 10_000 == 5 else f"text {i}", "id": i} for i in range(20_000)]
    index = _indexed(rows)
    assert index.documents["doc_id"].to_pylist() == [str(i) for i in range(20_000) if i % 10_000 != 5]
    assert index.quarantine["source_row"].to_pylist() == [5, 10_005]


@given(rows=_rows, other=_rows)
def test_equal_contents_and_only_they_have_equal_digests(
    rows: list[dict[str, object]], other: list[dict[str, object]]
) -> None:
    def content(index: IndexedShard) -> object:
        return (
            index.documents.select(["doc_id", "text_sha256"]).to_pylist(),
            index.quarantine.select(["source_row", "reason"]).to_pylist(),
        )

    left, right = _indexed(rows), _indexed(other)
    assert (left.content_digest == right.content_digest) == (content(left) == content(right))


def test_the_digest_does_not_depend_on_the_format() -> None:
    rows: list[dict[str, object]] = [{"text": "a", "id": "a"}, {"text": "", "id": "b"}, {"text": "c", "id": "a"}]
    assert len({_indexed(rows, format=format).content_digest for format in FORMATS}) == 1


@pytest.mark.parametrize(
    "changed",
    [
        [{"text": "a!", "id": "a"}, {"text": "b", "id": "b"}, {"text": "", "id": "c"}],
        [{"text": "a", "id": "x"}, {"text": "b", "id": "b"}, {"text": "", "id": "c"}],
        [{"text": "b", "id": "b"}, {"text": "a", "id": "a"}, {"text": "", "id": "c"}],
        [{"text": "a", "id": "a"}, {"text": "b", "id": "b"}],
        [{"text": "a", "id": "a"}, {"text": "b", "id": "b"}, {"text": " ", "id": "c"}],
        [{"text": "a", "id": "a"}, {"text": "", "id": "c"}, {"text": "b", "id": "b"}],
    ],
    ids=["text", "id", "order", "a refusal less", "another reason", "another row refused"],
)
def test_a_change_changes_the_digest(changed: list[dict[str, object]]) -> None:
    rows: list[dict[str, object]] = [{"text": "a", "id": "a"}, {"text": "b", "id": "b"}, {"text": "", "id": "c"}]
    assert _indexed(rows).content_digest != _indexed(changed).content_digest


def test_previews_are_the_beginnings_of_the_first_documents() -> None:
    rows: list[dict[str, object]] = [{"text": text, "id": text} for text in ["", "ab" * 500, "c", "d", "e"]]
    assert _indexed(rows).previews == (("ab" * 500)[:200], "c", "d")


def test_a_truncated_shard_has_no_index(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_rows(path, [{"text": f"text {i}", "id": i} for i in range(1000)], format="jsonl.zst")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated"):
        index_shard(shard_of(path, format="jsonl.zst", id_column="id"))
