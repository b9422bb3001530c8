"""A few texts of a shard are those that reading all of it finds, and little else of the file is read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.corpus.config import FORMATS
from attninf_assets.corpus.documents import BadFileError
from attninf_assets.corpus.indexing import index_shard
from attninf_assets.corpus.readers import read_few, read_shard
from attninf_assets.corpus.texts import FoundText, few_texts
from attninf_assets_tests.support.source_files import shard_of, write_rows

_bodies = st.lists(st.sampled_from(["", "one text", "another\nof two lines", " "]), min_size=1, max_size=12)


@settings(deadline=None, max_examples=25)
@given(
    bodies=_bodies,
    format=st.sampled_from(sorted(FORMATS)),
    wanted=st.frozensets(st.integers(0, 14)),
    group=st.integers(1, 5),
)
def test_the_few_rows_are_those_of_all(
    tmp_path_factory: pytest.TempPathFactory,
    bodies: list[str],
    format: str,
    wanted: frozenset[int],
    group: int,
) -> None:
    path = tmp_path_factory.mktemp("few") / f"a.{format}"
    rows: list[dict[str, object]] = [{"text": text, "id": f"d{number}"} for number, text in enumerate(bodies)]
    write_rows(path, rows, format=format)
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    shard = shard_of(path, format=format, id_column="id")
    assert list(read_few(shard, wanted)) == [row for row in read_shard(shard) if row.source_row in wanted]


def test_row_groups_without_a_wanted_row_and_lines_behind_the_last_are_not_read(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"text {number} " * 50, "id": f"d{number}"} for number in range(40)]
    path = tmp_path / "a.parquet"
    plain = {"use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10, **plain)
    shard = shard_of(path, format="parquet", id_column="id")
    documents = index_shard(shard, version="v").documents
    damaged = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    damaged[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(BadFileError):
        list(read_shard(shard))
    few = documents.filter(pa.array([number in (3, 25) for number in range(40)]))
    assert [(found.doc_id, found.problem) for found in few_texts(shard, few)] == [("d3", None), ("d25", None)]
    [found] = few_texts(shard, documents.slice(12, 1))
    assert found.text is None
    assert "cannot be read as parquet" in (found.problem or "")

    lines = tmp_path / "a.jsonl"
    write_rows(lines, rows, format="jsonl")
    shard = shard_of(lines, format="jsonl", id_column="id")
    documents = index_shard(shard, version="v").documents
    lines.write_bytes(lines.read_bytes()[:600])  # not even a whole line more
    [found] = few_texts(shard, documents.slice(0, 1))
    assert found == FoundText("d0", str(rows[0]["text"]), None)


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_text_that_is_gone_or_changed_is_told_and_nothing_is_raised(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"a.{format}"
    rows: list[dict[str, object]] = [{"text": f"text {number}", "id": f"d{number}"} for number in range(5)]
    write_rows(path, rows, format=format)
    shard = shard_of(path, format=format, id_column="id")
    documents = index_shard(shard, version="v").documents
    write_rows(path, [rows[0], {**rows[1], "text": "other"}, rows[3], {"text": "", "id": "d3"}], format=format)
    found = {one.doc_id: (one.text, one.problem) for one in few_texts(shard, documents)}
    assert found["d0"] == ("text 0", None)
    assert found["d1"] == ("other", "the text is another than was indexed: its sha256 differs")
    assert found["d2"] == (None, f"row 2 of {path} is another document now, 'd3'")
    assert found["d3"] == (None, f"row 3 of {path} cannot be a document any more: text is empty")
    assert found["d4"] == (None, f"{path} has no row 4 any more")
    path.unlink()
    assert {"no such file" in (one.problem or "") for one in few_texts(shard, documents)} == {True}
