"""The sample corpus: gathered whole or not at all, always the same, and fit to try everything else on."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from attninf_assets.corpus.config import load_corpus_config
from attninf_assets.corpus.discovery import Corpus
from attninf_assets.corpus.documents import Document, Shard
from attninf_assets.corpus.readers import read_shard
from attninf_assets.corpus.sentences import sample_sentences
from attninf_assets.sample.corpus import gather_sample_corpus
from attninf_assets_tests.support.source_files import documents_of, reasons_of


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gather_sample_corpus(tmp_path_factory.mktemp("sample") / "corpus")


@pytest.fixture(scope="module")
def shards(corpus_file: Path) -> list[Shard]:
    return Corpus(load_corpus_config(corpus_file)).shards()


@pytest.fixture(scope="module")
def documents(shards: list[Shard]) -> list[Document]:
    rows = [row for shard in shards for row in read_shard(shard)]
    assert reasons_of(rows) == {}
    return documents_of(rows)


def _contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_four_domains_of_three_shards_half_of_them_parquet(shards: list[Shard]) -> None:
    assert Counter(shard.domain for shard in shards) == {
        "stdlib_code": 3,
        "reference_prose": 3,
        "math_docstrings": 3,
        "package_readmes": 3,
    }
    assert Counter(shard.format for shard in shards) == {"parquet": 6, "jsonl.zst": 6}


def test_its_size_suits_a_demo(documents: list[Document]) -> None:
    assert 120 <= len(documents) <= 160
    assert 80_000 <= sum(len(document.text) for document in documents) <= 120_000
    lengths = [len(document.text) for document in documents]
    assert min(lengths) >= 250
    assert max(lengths) < 2500
    for domain in {document.domain for document in documents}:
        in_domain = [len(document.text) for document in documents if document.domain == domain]
        assert max(in_domain) > 3 * min(in_domain)


def test_no_two_documents_are_the_same(documents: list[Document]) -> None:
    assert len({document.text for document in documents}) == len(documents)
    assert len({(document.domain, document.doc_id) for document in documents}) == len(documents)


def test_gathering_again_elsewhere_writes_the_same_bytes(corpus_file: Path, tmp_path: Path) -> None:
    gather = "import sys; from attninf_assets.sample.corpus import gather_sample_corpus as g; g(sys.argv[1])"
    again = tmp_path / "again"
    subprocess.run([sys.executable, "-c", gather, again], check=True, env=os.environ | {"PYTHONHASHSEED": "12345"})
    assert _contents(again) == _contents(corpus_file.parent)


def test_it_is_written_beside_its_place_so_that_one_rename_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def write(directory: Path) -> None:
        written.append(directory)
        directory.mkdir()
        (directory / "corpus.yaml").touch()

    monkeypatch.setattr("attninf_assets.sample.corpus._write_corpus", write)
    corpus_file = gather_sample_corpus(tmp_path / "corpus")
    assert [directory.parent.parent for directory in written] == [tmp_path]
    assert os.listdir(tmp_path) == ["corpus"]
    assert corpus_file.exists()


def test_nothing_of_this_machine_is_in_it(documents: list[Document]) -> None:
    for document in documents:
        for place in (sys.prefix, os.path.dirname(os.__file__), os.getcwd()):
            assert place not in document.text
        assert not re.search(r"0x[0-9a-f]{9,}", document.text)


def test_the_prose_is_made_of_sentences_without_hard_line_breaks(
    shards: list[Shard], documents: list[Document]
) -> None:
    prose = [shard for shard in shards if shard.domain == "reference_prose"]
    sentences = [sentence for sentence in sample_sentences(prose, n=10_000, seed=0) if 6 <= len(sentence.split()) <= 30]
    assert len(sentences) >= 100
    for document in documents:
        if document.domain == "reference_prose":
            assert "\n" not in document.text.replace("\n\n", "")


def test_a_corpus_that_is_there_is_left_alone(tmp_path: Path) -> None:
    corpus_file = gather_sample_corpus(tmp_path / "corpus")
    before = {path: path.stat().st_mtime_ns for path in corpus_file.parent.rglob("*")}
    assert gather_sample_corpus(tmp_path / "corpus") == corpus_file
    assert {path: path.stat().st_mtime_ns for path in corpus_file.parent.rglob("*")} == before
    assert os.listdir(tmp_path) == ["corpus"]


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        gather_sample_corpus(tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_a_failure_on_the_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attninf_assets.sample.texts._PACKAGES", ("no-such-package",))
    with pytest.raises(RuntimeError, match="package_readmes: this Python installation holds too little text"):
        gather_sample_corpus(tmp_path / "corpus")
    assert os.listdir(tmp_path) == []
