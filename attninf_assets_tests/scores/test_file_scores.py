"""One file's scores in one file: whole or not there, and nothing in the way of what was there before."""

import json
import multiprocessing as mp
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.model.head import Head
from attninf_assets.influence.scoring import DocumentScore
from attninf_assets.influence.selector import Selector
from attninf_assets.scores.file_scores import (
    COLUMNS,
    FileContents,
    documents_of,
    read_through,
    require_output,
    shard_of_file,
    write_scores,
    write_text,
)
from attninf_assets_tests.support.processes import FORKED

SELECTOR = Selector("m", "t", (Head(1, 2),), "uniform", 64, "bos", "float32")
SCORES = [
    DocumentScore("a", 3, 2.0, 3.0),
    DocumentScore("b", 1, 0.0, 1.0),
    DocumentScore("é\n", 2, 1.0, 0.5, (0.25, None)),
]
ROWS = [("a", 3, 2.0, 3.0, 0.5), ("b", 1, 0.0, 1.0, None), ("é\n", 2, 1.0, 0.5, -0.5)]


def rows_in(path: Path) -> list[tuple[object, ...]]:
    if path.suffix == ".parquet":
        return pl.read_parquet(path).select(COLUMNS).rows()
    return [tuple(json.loads(line)[name] for name in COLUMNS) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_scores_are_read_back_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"scores{suffix}"
    write_scores(iter(SCORES), output, selector=SELECTOR)
    assert rows_in(output) == ROWS
    assert os.listdir(tmp_path) == [output.name]


def test_a_parquet_file_says_which_selector_made_it(tmp_path: Path) -> None:
    write_scores(SCORES, tmp_path / "scores.parquet", selector=SELECTOR)
    metadata = pq.read_schema(tmp_path / "scores.parquet").metadata
    assert Selector.from_json(metadata[b"selector"].decode()) == SELECTOR
    assert metadata[b"selector_fingerprint"].decode() == SELECTOR.fingerprint


def test_many_row_groups_hold_every_row_in_order(tmp_path: Path) -> None:
    many = (DocumentScore(str(n), n, 1.0, 1.0 + n) for n in range(25_001))
    write_scores(many, tmp_path / "scores.parquet", selector=SELECTOR)
    assert pl.read_parquet(tmp_path / "scores.parquet")["n_tokens"].to_list() == list(range(25_001))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_an_error_on_the_way_leaves_what_was_there_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"scores{suffix}"
    write_text("what was there", output)

    def failing() -> Iterator[DocumentScore]:
        yield SCORES[0]
        raise ValueError("the disk of the model is on fire")

    with pytest.raises(ValueError, match="on fire"):
        write_scores(failing(), output, selector=SELECTOR)
    assert output.read_text() == "what was there"
    assert os.listdir(tmp_path) == [output.name]


def _write_slowly(output: Path, begun: "mp.synchronize.Event") -> None:
    def slow() -> Iterator[DocumentScore]:
        for number in range(20_000):
            yield DocumentScore(str(number), 1, 1.0, 2.0)
        begun.set()
        signal.pause()

    write_scores(slow(), output, selector=SELECTOR)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_killed_command_leaves_no_output_that_looks_whole(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"scores{suffix}"
    begun = FORKED.Event()
    process = FORKED.Process(target=_write_slowly, args=(output, begun))
    process.start()
    assert begun.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not output.exists()
    assert [".unfinished-" in name for name in os.listdir(tmp_path)] == [True]
    write_scores([], output, selector=SELECTOR)
    assert os.listdir(tmp_path) == [output.name]  # what the killed one left is gone


@pytest.mark.parametrize(
    ("name", "format", "shard"),
    [
        ("texts.jsonl", "jsonl", "texts"),
        ("texts.jsonl.gz", "jsonl.gz", "texts"),
        ("a.b.jsonl.zst", "jsonl.zst", None),
        ("Texts.parquet", "parquet", None),
    ],
)
def test_a_files_format_is_known_by_its_suffix(name: str, format: str, shard: str | None) -> None:
    made = shard_of_file(name, text_column="text", id_column=None)
    assert (made.format, made.uri) == (format, os.path.abspath(name))
    assert shard is None or made.name == shard


@given(name=st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1))
def test_a_file_of_another_suffix_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"its suffix is none of \.parquet, \.jsonl") as caught:
        shard_of_file(f"{name}.txt", text_column="text", id_column=None)
    assert str(caught.value).startswith(f"{name}.txt: ")


def test_an_address_in_the_cloud_is_read_as_it_stands() -> None:
    assert shard_of_file("s3://b/x.parquet", text_column="text", id_column="id").uri == "s3://b/x.parquet"


def test_a_file_that_changed_between_the_two_readings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "one"}\n{"text": ""}\n{"text": "three"}\n')
    shard = shard_of_file(str(path), text_column="text", id_column=None)
    refused: list[int] = []
    contents = read_through(shard, on_refusal=lambda refusal: refused.append(refusal.source_row))
    assert (contents, refused) == (FileContents(n_documents=2, n_bytes=8, n_refused=1), [1])
    assert [d.text for d in documents_of(shard, contents)] == ["one", "three"]
    path.write_text('{"text": "one"}\n')
    with pytest.raises(ValueError, match=r"texts\.jsonl: the file changed while it was scored"):
        list(documents_of(shard, contents))


def test_an_output_that_may_not_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    (tmp_path / "folder.jsonl").mkdir()
    for output, force, complaint in [
        (tmp_path / "scores.csv", False, r"scores\.csv: its suffix is none of \.parquet, \.jsonl"),
        (source, False, r"in\.jsonl: exists; replace it with --force"),
        (source, True, r"in\.jsonl: is also IN"),
        (tmp_path / "folder.jsonl", True, r"folder\.jsonl: is a folder"),
        (tmp_path / "absent" / "scores.jsonl", False, "there is no folder .*absent"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            require_output(output, source=str(source), force=force)
    require_output(tmp_path / "scores.parquet", source=str(source), force=False)
