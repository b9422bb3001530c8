"""The files that a corpus file's globs match become shards, found by their keys."""

import re
from pathlib import Path

import pytest

from attninf_assets.corpus.config import load_corpus_config
from attninf_assets.corpus.discovery import discover_shards, domains_without_shards, find_shard

_GOOD = "{files: 'web/*.parquet', format: parquet}"


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "corpus.yaml"
    path.write_text(text)
    return path


def _corpus(tmp_path: Path, glob: str, files: list[str], *, format: str = "parquet") -> Path:
    for file in files:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return _write(tmp_path, f"domains:\n  web: {{files: '{glob}', format: {format}}}\n")


def test_shards_are_sorted_and_read_as_their_domain_says(tmp_path: Path) -> None:
    path = _corpus(tmp_path, "web/**/*.jsonl.gz", ["web/b.jsonl.gz", "web/a.jsonl.gz", "web/x.txt"], format="jsonl.gz")
    shards = discover_shards(load_corpus_config(path))
    assert [shard.key for shard in shards] == ["web.a", "web.b"]
    assert {(shard.format, shard.text_column, shard.id_column) for shard in shards} == {("jsonl.gz", "text", None)}


def test_a_domain_whose_glob_matches_nothing_has_no_shards_and_can_be_told(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.parquet").touch()
    path = _write(tmp_path, f"domains:\n  web: {_GOOD}\n  code: {{files: code/*.jsonl, format: jsonl}}\n")
    config = load_corpus_config(path)
    shards = discover_shards(config)
    assert [shard.key for shard in shards] == ["web.a"]
    assert [source.domain for source in domains_without_shards(config, shards)] == ["code"]


def test_two_files_with_one_shard_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    path = _corpus(tmp_path, "web/*", ["web/a.parquet", "web/a"])
    with pytest.raises(ValueError, match=r"domains\.web\.files.*'a'") as caught:
        discover_shards(load_corpus_config(path))
    assert f"{tmp_path}/web/a and {tmp_path}/web/a.parquet" in str(caught.value)


def test_a_shard_is_found_by_its_key(tmp_path: Path) -> None:
    config = load_corpus_config(_corpus(tmp_path, "web/**/*.parquet", ["web/a.parquet", "web/2024/B b.parquet"]))
    for shard in discover_shards(config):
        assert find_shard(config, shard.key) == shard


def test_a_shard_whose_file_is_gone_is_named_with_its_neighbours(tmp_path: Path) -> None:
    config = load_corpus_config(_corpus(tmp_path, "web/*.parquet", ["web/part-001.parquet", "web/part-003.parquet"]))
    with pytest.raises(ValueError, match=r"'web\.part-002'.*web/\*\.parquet.*retire_shards.*near it: web\.part-00"):
        find_shard(config, "web.part-002")


@pytest.mark.parametrize("key", ["weeb.a", "web", "", ".", "a.b.c"])
def test_a_key_of_no_domain_or_no_shard_is_refused(tmp_path: Path, key: str) -> None:
    config = load_corpus_config(_corpus(tmp_path, "web/*.parquet", ["web/a.parquet"]))
    with pytest.raises(ValueError, match=re.escape(repr(key))):
        find_shard(config, key)
