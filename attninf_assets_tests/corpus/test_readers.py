"""Reading shards: what is written is read back, what cannot be a document is refused by name, bad files say so."""

import gzip
import json
import tempfile
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.corpus.config import FORMATS
from attninf_assets.corpus.documents import Document, Refusal
from attninf_assets.corpus.readers import read_shard
from attninf_assets.store.filesystems import filesystem_for
from attninf_assets_tests.support.source_files import (
    documents_of,
    json_lines,
    reasons_of,
    shard_of,
    write_jsonl,
    write_parquet,
    write_rows,
)

_JSONL_FORMATS = [format for format in FORMATS if format != "parquet"]
_texts = st.text(min_size=1).filter(lambda text: not text.isspace())


def _jsonl_reasons(tmp_path: Path, *lines: bytes, id_column: str | None = None) -> dict[int, str]:
    """Reasons for which lines are refused, in a file whose last line is good."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([*lines, b'{"text": "good", "id": "last"}', b""]))
    rows = list(read_shard(shard_of(path, format="jsonl", id_column=id_column)))
    assert [row.source_row for row in rows] == list(range(len(lines) + 1))
    return reasons_of(rows)


def _parquet_reasons(tmp_path: Path, *, id_column: str | None = None, **columns: object) -> dict[int, str]:
    path = tmp_path / "x.parquet"
    write_parquet(path, **columns)
    return reasons_of(list(read_shard(shard_of(path, format="parquet", id_column=id_column))))


def _complaint(path: Path, *, format: str, id_column: str | None = None, text_column: str = "text") -> str:
    with pytest.raises(ValueError, match=path.name) as caught:
        list(read_shard(shard_of(path, format=format, id_column=id_column, text_column=text_column)))
    return str(caught.value)


# --- what is written is read back


@pytest.mark.parametrize("format", FORMATS)
@given(texts=st.lists(_texts, min_size=1, max_size=150))
def test_texts_come_back_as_they_were_written(format: str, texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        write_rows(path, [{"text": text, "other": i} for i, text in enumerate(texts)], format=format)
        assert list(read_shard(shard_of(path, format=format))) == [
            Document(f"shard:{i}", "web", "shard", str(path), i, text) for i, text in enumerate(texts)
        ]


@pytest.mark.parametrize("format", FORMATS)
@given(ids=st.lists(_texts, min_size=1, max_size=30, unique=True))
def test_ids_come_back_as_they_were_written(format: str, ids: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        write_rows(path, [{"text": "t", "id": doc_id} for doc_id in ids], format=format)
        assert [
            row.doc_id for row in documents_of(list(read_shard(shard_of(path, format=format, id_column="id"))))
        ] == ids


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_reads_the_same_rows(tmp_path: Path, format: str) -> None:
    rows: list[dict[str, object]] = [
        {"id": "a", "text": "one\ntwo\r\n\u2028three\0"},
        {"id": "b", "text": None},
        {"id": "c", "text": ""},
        {"id": "d", "text": " \n\t"},
        {"id": None, "text": "no id"},
        {"id": "", "text": "empty id"},
        {"id": " ", "text": "blank id"},
        {"id": "a", "text": "again"},
        {"id": "b", "text": "b was refused, so this is the first"},
    ]
    path = tmp_path / "x"
    write_rows(path, rows, format=format)
    read = list(read_shard(shard_of(path, format=format, id_column="id")))
    assert [(row.source_row, row.doc_id, row.text) for row in documents_of(read)] == [
        (0, "a", "one\ntwo\r\n\u2028three\0"),
        (8, "b", "b was refused, so this is the first"),
    ]
    assert reasons_of(read) == {
        1: "text is null",
        2: "text is empty",
        3: "text is only whitespace",
        4: "doc_id is null",
        5: "doc_id is empty",
        6: "doc_id is only whitespace",
        7: "doc_id 'a' is a duplicate of row 0",
    }


@pytest.mark.parametrize("format", FORMATS)
def test_integer_ids_become_strings(tmp_path: Path, format: str) -> None:
    path = tmp_path / "x"
    write_rows(path, [{"id": 2**62, "text": "a"}, {"id": -1, "text": "b"}, {"id": -1, "text": "c"}], format=format)
    rows = list(read_shard(shard_of(path, format=format, id_column="id")))
    assert [row.doc_id for row in documents_of(rows)] == [str(2**62), "-1"]
    assert reasons_of(rows) == {2: "doc_id '-1' is a duplicate of row 1"}


@pytest.mark.parametrize("format", FORMATS)
def test_a_reason_is_a_short_line_whatever_the_id(tmp_path: Path, format: str) -> None:
    path = tmp_path / "x"
    write_rows(path, [{"id": "\x1b\n" * 5_000, "text": "a"}] * 2, format=format)
    (reason,) = reasons_of(list(read_shard(shard_of(path, format=format, id_column="id")))).values()
    assert len(reason) < 400
    assert reason.startswith(r"doc_id '\x1b\n\x1b\n")
    assert reason.endswith("(30,002 characters) is a duplicate of row 0")


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_name_cannot_act_on_what_shows_the_error_about_it(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"\x1b[2J\nERROR: forged\u202e.{format}"
    for content in (b"", b"PAR1 nothing of the kind\x1b", None):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=r"\\x1b\[2J\\nERROR: forged\\u202e") as caught:
            list(read_shard(shard_of(path, format=format)))
        assert not {"\x1b", "\n", "\u202e"} & set(str(caught.value))


def test_a_parquet_file_whose_columns_have_no_names_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["a"], "zzzz": ["b"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"zzzz", b"\xff\xff\xff\xff"))
    assert "cannot be read as parquet" in _complaint(path, format="parquet")


def test_the_words_of_the_parquet_library_cannot_act_on_what_shows_them(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    footer = b"\x15\x02\x1d" + b"\x0f" * 20
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert "\n" not in _complaint(path, format="parquet")
    assert not any(character < " " for character in _complaint(path, format="parquet"))


@pytest.mark.parametrize("format", FORMATS)
def test_a_document_of_five_megabytes_in_one_line_is_read(tmp_path: Path, format: str) -> None:
    text = "".join(chr(0x4E00 + i % 5000) for i in range(1_700_000))
    path = tmp_path / "x"
    write_rows(path, [{"text": "short"}, {"text": text}, {"text": "short"}], format=format)
    assert [row.text for row in documents_of(list(read_shard(shard_of(path, format=format))))] == [
        "short",
        text,
        "short",
    ]


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_every_kind_of_parquet_string_is_text(tmp_path: Path, type_: pa.DataType) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(path, text=pa.array(["a", "b", None, "a"]).cast(type_), id=pa.array(["1", "2", "3", "4"]).cast(type_))
    rows = list(read_shard(shard_of(path, format="parquet", id_column="id")))
    assert [(row.doc_id, row.text) for row in documents_of(rows)] == [("1", "a"), ("2", "b"), ("4", "a")]
    assert reasons_of(rows) == {2: "text is null"}


def test_rows_are_counted_across_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"text {i}" for i in range(1000)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=77)
    rows = documents_of(list(read_shard(shard_of(path, format="parquet"))))
    assert [(row.source_row, row.text) for row in rows] == list(enumerate(texts))


def test_the_first_rows_come_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.zst"
    whole = zstandard.compress(json_lines([{"text": f"text {i} {i * i}"} for i in range(100_000)]))
    path.write_bytes(whole[: len(whole) // 2])
    assert next(read_shard(shard_of(path, format="jsonl.zst"))).source_row == 0


def test_a_row_group_is_never_held_in_memory_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": [f"{i} " * 200 for i in range(10_000, 50_000)]}), path, compression="none")
    assert pq.read_metadata(path).num_row_groups == 1
    assert path.stat().st_size > 45_000_000
    before = pa.total_allocated_bytes()
    assert max(pa.total_allocated_bytes() - before for _ in read_shard(shard_of(path, format="parquet"))) < 25_000_000


@pytest.mark.parametrize("format", ["parquet", "jsonl.zst"])
def test_a_shard_on_s3_reads_like_a_local_one(s3_options: dict[str, str], tmp_path: Path, format: str) -> None:
    local = tmp_path / "x"
    write_rows(local, [{"text": f"text {i}"} for i in range(200)], format=format)
    uri = f"s3://lake/readers-test/x.{format}"
    filesystem, path = filesystem_for(uri, s3_options)
    with filesystem.open_output_stream(path, compression=None) as stream:
        stream.write(local.read_bytes())
    shard = replace(shard_of(local, format=format), uri=uri)
    rows = documents_of(list(read_shard(shard, storage_options=s3_options)))
    assert [row.text for row in rows] == [f"text {i}" for i in range(200)]
    assert {row.source_uri for row in rows} == {uri}


# --- rows that are refused


def test_a_line_that_is_not_json_is_refused(tmp_path: Path) -> None:
    assert _jsonl_reasons(tmp_path, b'{"text": "a"', b"{'text': 'a'}", b'{"text": "a"} {"text": "b"}') == {
        0: "line is not valid JSON: Expecting ',' delimiter at character 13",
        1: "line is not valid JSON: Expecting property name enclosed in double quotes at character 2",
        2: "line is not valid JSON: Extra data at character 15",
    }


def test_a_line_that_is_not_an_object_is_refused(tmp_path: Path) -> None:
    assert _jsonl_reasons(tmp_path, b"[1]", b'"text"', b"null", b"3") == dict.fromkeys(
        range(4), "line is not a JSON object"
    )


def test_an_empty_line_is_refused(tmp_path: Path) -> None:
    assert _jsonl_reasons(tmp_path, b"", b" \t\r") == {0: "line is empty", 1: "line is empty"}


def test_a_line_with_undecodable_bytes_is_refused(tmp_path: Path) -> None:
    assert _jsonl_reasons(tmp_path, b'{"text": "\xff\xfe"}', b'{"text": "\xed\xa0\x80"}') == {
        0: "line is not valid UTF-8",
        1: "line is not valid UTF-8",
    }


def test_a_lone_surrogate_is_refused_and_a_pair_is_not(tmp_path: Path) -> None:
    assert _jsonl_reasons(tmp_path, rb'{"text": "a\ud800b"}', rb'{"text": "\ud83d\ude00"}') == {
        0: "text is not valid UTF-8"
    }


def test_a_lone_surrogate_in_an_id_is_refused(tmp_path: Path) -> None:
    assert _jsonl_reasons(tmp_path, rb'{"text": "a", "id": "\udc00"}', id_column="id") == {
        0: "doc_id is not valid UTF-8"
    }


@pytest.mark.parametrize(
    ("value", "kind"),
    [("[1]", "a list"), ("{}", "an object"), ("3", "an integer"), ("1.5", "a float"), ("true", "a boolean")],
)
def test_text_that_is_not_a_string_is_refused(tmp_path: Path, value: str, kind: str) -> None:
    assert _jsonl_reasons(tmp_path, f'{{"text": {value}}}'.encode()) == {0: f"text is {kind}, not a string"}


@pytest.mark.parametrize(
    ("value", "kind"), [("[1]", "a list"), ("{}", "an object"), ("1.5", "a float"), ("true", "a boolean")]
)
def test_an_id_that_is_neither_string_nor_integer_is_refused(tmp_path: Path, value: str, kind: str) -> None:
    reasons = _jsonl_reasons(tmp_path, f'{{"text": "a", "id": {value}}}'.encode(), id_column="id")
    assert reasons == {0: f"doc_id is {kind}, not a string or an integer"}


def test_a_row_without_the_field_is_refused(tmp_path: Path) -> None:
    reasons = _jsonl_reasons(tmp_path, b'{"id": "a"}', b'{"text": "a"}', id_column="id")
    assert reasons == {0: "text is missing", 1: "doc_id is missing"}


def test_json_that_would_exhaust_the_parser_is_refused(tmp_path: Path) -> None:
    nested, digits = b"[" * 200_000, b'{"text": "a", "n": ' + b"9" * 5000 + b"}"
    assert _jsonl_reasons(tmp_path, nested, digits) == {
        0: "line is not valid JSON: nested too deeply",
        1: "line is not valid JSON: a number has too many digits",
    }


def test_an_integer_id_and_the_same_id_as_a_string_are_duplicates(tmp_path: Path) -> None:
    reasons = _jsonl_reasons(tmp_path, b'{"text": "a", "id": 7}', b'{"text": "b", "id": "7"}', id_column="id")
    assert reasons == {1: "doc_id '7' is a duplicate of row 0"}


def test_a_byte_order_mark_does_not_hide_the_first_line(tmp_path: Path) -> None:
    assert _jsonl_reasons(tmp_path, b'\xef\xbb\xbf{"text": "a"}') == {}


def test_parquet_bytes_that_are_not_utf8_are_refused_alone(tmp_path: Path) -> None:
    values = [b"good", b"\xff\xfe", None, "gut ü".encode(), b"\xed\xa0\x80"]
    lying = pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())
    for column in (lying, lying.dictionary_encode(), pa.array(values, pa.binary())):
        assert _parquet_reasons(tmp_path, text=column) == {
            1: "text is not valid UTF-8",
            2: "text is null",
            4: "text is not valid UTF-8",
        }
        ids = _parquet_reasons(tmp_path, text=pa.array(["a"] * 5), id=column, id_column="id")
        assert ids == {1: "doc_id is not valid UTF-8", 2: "doc_id is null", 4: "doc_id is not valid UTF-8"}


def test_a_parquet_column_of_nulls_is_refused_row_by_row(tmp_path: Path) -> None:
    assert _parquet_reasons(tmp_path, text=pa.nulls(2)) == {0: "text is null", 1: "text is null"}


# --- files that cannot be read


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_file_is_named(tmp_path: Path, format: str) -> None:
    assert "there is no such file (shard web.shard)" in _complaint(tmp_path / "nowhere", format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_file_is_an_error(tmp_path: Path, format: str) -> None:
    path = tmp_path / "x"
    path.touch()
    assert ("no rows" in (complaint := _complaint(path, format=format))) or "0 bytes" in complaint


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_no_rows_is_an_error(tmp_path: Path, format: str) -> None:
    path = tmp_path / "x"
    if format == "parquet":
        write_parquet(path, text=pa.array([], pa.string()))
    else:
        write_jsonl(path, b"", format=format)
    assert "the file holds no rows" in _complaint(path, format=format)


@pytest.mark.parametrize("format", ["parquet", "jsonl.zst", "jsonl.gz"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99, 1.0])
def test_a_truncated_compressed_file_never_ends_in_silence(tmp_path: Path, format: str, share: float) -> None:
    path = tmp_path / "x"
    write_rows(path, [{"text": f"text {i} {i**3}"} for i in range(20_000)], format=format)
    content = path.read_bytes()
    path.write_bytes(content[: min(int(len(content) * share), len(content) - 1)])
    assert f"cannot be read as {format}" in _complaint(path, format=format)


def test_a_plain_file_cut_inside_its_last_line_refuses_that_line(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(json_lines([{"text": "a"}, {"text": "b"}])[:-3])
    assert list(reasons_of(list(read_shard(shard_of(path, format="jsonl"))))) == [1]


@pytest.mark.parametrize("format", ["jsonl.zst", "jsonl.gz"])
def test_concatenated_frames_are_all_read(tmp_path: Path, format: str) -> None:
    compress = zstandard.compress if format == "jsonl.zst" else gzip.compress
    path = tmp_path / "x"
    path.write_bytes(b"".join(compress(json_lines([{"text": f"text {i}"}])) for i in range(50)))
    rows = documents_of(list(read_shard(shard_of(path, format=format))))
    assert [row.text for row in rows] == [f"text {i}" for i in range(50)]


@pytest.mark.parametrize("format", ["jsonl.zst", "jsonl.gz"])
def test_a_truncated_second_frame_never_ends_in_silence(tmp_path: Path, format: str) -> None:
    compress = zstandard.compress if format == "jsonl.zst" else gzip.compress
    frame = compress(json_lines([{"text": "text"}]))
    path = tmp_path / "x"
    for cut in range(1, len(frame)):
        path.write_bytes(frame + frame[:-cut])
        assert f"cannot be read as {format}" in _complaint(path, format=format)


@pytest.mark.parametrize("format", ["parquet", "jsonl.zst", "jsonl.gz"])
def test_a_file_damaged_in_the_middle_is_an_error(tmp_path: Path, format: str) -> None:
    path = tmp_path / "x"
    if format == "parquet":
        pq.write_table(pa.table({"text": [f"text {i}" for i in range(5000)]}), path)
    else:
        write_jsonl(path, json_lines([{"text": f"text {i} {i**3}"} for i in range(5000)]), format=format)
    content = bytearray(path.read_bytes())
    for i in range(len(content) // 2, len(content) // 2 + 40):
        content[i] ^= 0xFF
    path.write_bytes(bytes(content))
    assert f"cannot be read as {format}" in _complaint(path, format=format)


def test_a_changed_letter_under_a_page_checksum_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    table = pa.table({"text": ["one", "two", "three"]})
    pq.write_table(
        table, path, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2].replace(b"two", b"tow", 1) + content[len(content) // 2 :])
    assert "cannot be read as parquet" in _complaint(path, format="parquet")


@pytest.mark.parametrize(("written", "declared"), list(permutations(FORMATS, 2)))
def test_a_file_of_another_format_is_an_error(tmp_path: Path, written: str, declared: str) -> None:
    path = tmp_path / "x"
    write_rows(path, [{"text": f"text {i}"} for i in range(100)], format=written)
    assert declared in _complaint(path, format=declared)


def test_text_that_is_no_jsonl_at_all_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("id,text\n1,a\n")
    assert "none of the 2 lines is a JSON object; is the file jsonl?" in _complaint(path, format="jsonl")


def test_a_folder_is_no_shard(tmp_path: Path) -> None:
    assert "directory" in _complaint(tmp_path, format="jsonl")


def test_a_column_that_parquet_lacks_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_parquet(path, content=["a"], url=["b"])
    assert "no column 'text' (text column); it has content, url" in _complaint(path, format="parquet")
    complaint = _complaint(path, format="parquet", text_column="content", id_column="id")
    assert "no column 'id' (id column); it has content, url" in complaint


@pytest.mark.parametrize("format", _JSONL_FORMATS)
def test_a_column_in_no_line_is_named_with_those_there_are(tmp_path: Path, format: str) -> None:
    path = tmp_path / "x"
    write_jsonl(path, json_lines([{"content": "a", "url": "b"}] * 3), format=format)
    assert "text column 'text' is in none of the 3 rows; columns there: content, url" in _complaint(path, format=format)
    complaint = _complaint(path, format=format, text_column="content", id_column="id")
    assert "id column 'id' is in none of the 3 rows; columns there: content, url" in complaint


@pytest.mark.parametrize(
    ("values", "type_name"), [([["a"]], "list<element: string>"), ([1], "int64"), ([{"a": "b"}], "struct<a: string>")]
)
def test_a_parquet_text_column_of_another_type_is_an_error(
    tmp_path: Path, values: list[object], type_name: str
) -> None:
    path = tmp_path / "x"
    write_parquet(path, text=values)
    assert f"text column 'text' holds {type_name}, not strings" in _complaint(path, format="parquet")


def test_a_parquet_id_column_of_another_type_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_parquet(path, text=["a"], id=[1.5])
    complaint = _complaint(path, format="parquet", id_column="id")
    assert "id column 'id' holds double, not strings or integers" in complaint


def test_two_parquet_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    assert "2 column 'text'" in _complaint(path, format="parquet")


def test_a_failing_network_is_not_blamed_on_the_file(s3_options: dict[str, str]) -> None:
    shard = replace(shard_of(Path("x"), format="jsonl"), uri="s3://lake/x.jsonl")
    with pytest.raises(OSError, match="AWS Error"):
        list(read_shard(shard, storage_options=s3_options | {"AWS_SECRET_ACCESS_KEY": "wrong"}))


@given(rows=st.lists(st.dictionaries(st.sampled_from(["text", "id", "x"]), st.none() | st.text() | st.integers())))
def test_every_line_is_accounted_for_once_and_in_order(rows: list[dict[str, object]]) -> None:
    rows = [*rows, {"text": "good", "id": "\0last"}]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        read = list(read_shard(shard_of(path, format="jsonl", id_column="id")))
    assert [row.source_row for row in read] == list(range(len(rows)))
    for row in documents_of(read):
        assert row.text == rows[row.source_row]["text"]
        assert row.doc_id == str(rows[row.source_row]["id"])
    ids = [row.doc_id for row in documents_of(read)]
    assert len(set(ids)) == len(ids)


def test_a_refused_row_has_its_id_and_how_its_text_begins_fit_to_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [
        b'{"id": "a", "text": "first"}',
        b'{"id": "a", "text": "\\u001b[2Jagain\\u202e' + b"x" * 500 + b'"}',
        b'{"id": "b", "text": 12345}',
        b'{"id": null, "text": "no id"}',
        b'{"id": "c", "text": null}',
        b"\xff\x00 not json",
    ]
    path.write_bytes(b"\n".join(lines))
    refused = [row for row in read_shard(shard_of(path, format="jsonl", id_column="id")) if isinstance(row, Refusal)]
    assert [(row.source_row, row.doc_id, row.excerpt) for row in refused] == [
        (1, "a", "\\x1b[2Jagain\\u202e" + "x" * 70),
        (2, "b", "12345"),
        (3, None, "no id"),
        (4, "c", None),
        (5, None, "\\xff\\x00 not json"),
    ]
