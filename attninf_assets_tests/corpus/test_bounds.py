"""Files made to take all memory or all time: they are refused by name, in bounded memory, and others are not."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from attninf_assets.corpus import bounds, formats, readers
from attninf_assets.corpus.bounds import INFLATES_AT_MOST, LONGEST_ROW, batch_rows, require_inflation
from attninf_assets.corpus.readers import read_shard
from attninf_assets_tests.support.source_files import documents_of, reasons_of, shard_of, write_rows

_MOST_MEMORY = 700 << 20  # of a process that reads such a file; without doing so it has about 100 MiB
_READ = """
import re, sys
from pathlib import Path
from attninf_assets.corpus.readers import read_shard
from attninf_assets_tests.support.source_files import shard_of
try:
    said = str(sum(1 for _ in read_shard(shard_of(Path(sys.argv[1]), format=sys.argv[2]))))
except ValueError as error:
    said = str(error)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], said)
"""


def _read_apart(path: Path, *, format: str) -> str:
    """What a process of its own says that reads the file, in bounded memory: how many rows there are, or the error."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, path, format], capture_output=True, text=True, check=True, timeout=120
    )
    memory, _, said = done.stdout.strip().partition(" ")
    assert int(memory) << 10 < _MOST_MEMORY, f"{int(memory) >> 10} MiB"
    return said


def _write_zstd(path: Path, *, head: bytes, piece: bytes, n: int) -> None:
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as stream:
        stream.write(head)
        for _ in range(n):
            stream.write(piece)


def test_a_small_file_that_decompresses_to_one_endless_line_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.zst"
    _write_zstd(path, head=b'{"text": "ok"}\n{"text": "', piece=b"a" * (1 << 20), n=1_000)
    assert path.stat().st_size < 50_000
    said = _read_apart(path, format="jsonl.zst")
    assert said.startswith(f"{path}: ")
    assert "above 200 times as many" in said


def test_a_parquet_column_that_decompresses_to_gigabytes_is_refused_with_its_row_group(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"text": ["a" * (100 << 20)]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    assert path.stat().st_size < 56_000
    assert f"{path}: row group 0, column 'text': " in _read_apart(path, format="parquet")


@pytest.mark.parametrize("encoding", ["dictionary", "DELTA_BYTE_ARRAY"])
def test_a_long_text_that_parquet_repeats_for_nothing_is_not_held_as_often(tmp_path: Path, encoding: str) -> None:
    path, text = tmp_path / "x.parquet", "a" * (LONGEST_ROW - 1000)
    if encoding == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array([text]))
        pq.write_table(pa.table({"text": column}), path, compression="zstd", write_statistics=False)
    else:
        table = pa.table({"text": [text] * 6})
        options = {"use_dictionary": False, "column_encoding": {"text": encoding}, "write_statistics": False}
        pq.write_table(table, path, compression="zstd", **options)
    assert path.stat().st_size < 3_000
    assert "above 200 times as many" in _read_apart(path, format="parquet")


def test_dictionaries_are_measured_by_what_their_pages_say(tmp_path: Path) -> None:
    """The larger they are, the fewer rows are decoded at once."""
    found = []
    for n_bytes in (1_000, 10 << 20, 60 << 20):
        path = tmp_path / f"{n_bytes}.parquet"
        table = pa.table({"text": ["a" * n_bytes, *("b" * 100_000 * (n % 2) + str(n) for n in range(250))]})
        pq.write_table(table, path, dictionary_pagesize_limit=1 << 30, compression="none", write_statistics=False)
        assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size > n_bytes + 12_000_000
        with pa.OSFile(str(path)) as file:
            found.append(batch_rows(file, pq.read_metadata(path), ["text"], uri="x"))
    assert found == [(128 << 20) // (n_bytes + 12_500_000 + 2_000) for n_bytes in (1_000, 10 << 20, 60 << 20)]


def test_a_parquet_file_of_more_rows_than_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": pa.nulls(1_000_001, pa.string())}), path)
    with pytest.raises(ValueError, match=r"x\.parquet: the file says that it has 1,000,001 rows, in [\d,]+ bytes"):
        list(read_shard(shard_of(path, format="parquet")))


@pytest.mark.parametrize("format", ["parquet", "jsonl", "jsonl.gz"])
@pytest.mark.parametrize("field", ["text", "id"])
def test_a_row_that_is_too_long_is_refused_and_those_after_it_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, field: str
) -> None:
    for module in (formats, bounds):
        monkeypatch.setattr(module, "LONGEST_ROW", 100_000)
    monkeypatch.setattr(bounds, "INFLATES_AT_MOST", 10_000)
    path = tmp_path / "x"
    written: list[dict[str, object]] = [
        {"text": "a", "id": "1"},
        {"text": "b", "id": "2", field: "x" * 100_001},
        {"text": "c", "id": "3"},
    ]
    write_rows(path, written, format=format)
    read = list(read_shard(shard_of(path, format=format, id_column="id")))
    assert [(row.source_row, row.text) for row in documents_of(read)] == [(0, "a"), (2, "c")]
    what = "row" if format == "parquet" else "line"
    assert reasons_of(read) == {1: f"{what} is longer than 100,000 bytes"}


@pytest.mark.parametrize("n_bytes", [-1, 0, 1, 2])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_the_longest_line_is_read_and_one_byte_more_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int, end: bytes
) -> None:
    monkeypatch.setattr(formats, "LONGEST_ROW", 100)
    path, frame = tmp_path / "x.jsonl", len(json.dumps({"text": ""}))
    line = json.dumps({"text": "x" * (100 + n_bytes - frame)}).encode()
    path.write_bytes(b'{"text": "a"}\n' + line + end)
    read = list(read_shard(shard_of(path, format="jsonl")))
    assert len(documents_of(read)) == (2 if n_bytes <= 0 else 1)
    assert len(read) == 2


def test_a_real_line_that_is_too_long_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "a"}\n{"text": "')
        for _ in range(1_000):
            file.write(b"a" * (1 << 20))
        file.write(b'"}\n{"text": "b"}\n')
    assert _read_apart(path, format="jsonl") == "3"
    path.unlink()


def test_a_file_without_any_object_is_given_up_before_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_LINES_WITHOUT_OBJECT", 1_000)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"[]\n" * 2_000)
    read = read_shard(shard_of(path, format="jsonl"))
    for _ in range(1_000):
        next(read)
    with pytest.raises(ValueError, match="none of the first 1,000 lines is a JSON object"):
        next(read)
    path.write_bytes(b"[]\n" * 999 + b'{"text": "a"}\n' + b"[]\n" * 2_000)
    assert len(list(read_shard(shard_of(path, format="jsonl")))) == 3_000


def test_a_shard_of_refused_rows_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MOST_REFUSED", 10)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + b"\n" * 11)
    with pytest.raises(ValueError, match=r"more than 10 rows cannot be documents, the last .* row 11: line is empty"):
        list(read_shard(shard_of(path, format="jsonl")))


def test_what_is_shorter_than_a_row_may_be_inflates_as_it_likes() -> None:
    require_inflation(LONGEST_ROW, 1, what="x")
    require_inflation(INFLATES_AT_MOST << 30, 1 << 30, what="x")
    with pytest.raises(ValueError, match="x: 1 bytes decompress to"):
        require_inflation(LONGEST_ROW + 1, 1, what="x")
