"""Features kept where text and definitions are the same, computed where they are not, and duplicates found over all."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.stored_index import index_and_store
from attninf_assets.scores.features import update as features_update
from attninf_assets.scores.features.measures import FEATURES_VERSION, measured
from attninf_assets.scores.features.near_duplicates import find_near_duplicates, mark_near_duplicates
from attninf_assets.scores.features.update import update_document_features
from attninf_assets.scores.features.verification import feature_faults
from attninf_assets.store.query import connect
from attninf_assets.store.retirement import retire_shard, stored_shards
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support import feature_oracle as oracle
from attninf_assets_tests.support.source_files import landed
from benchmarks.rigs.made_up_text import sentences

_A, _B = {"domain": "web", "shard": "a"}, {"domain": "web", "shard": "b"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(Root.at(tmp_path / "root"))


def _shard(lake: Lake, directory: Path, name: str, texts: Mapping[str, str] | Sequence[str]) -> Shard:
    """An indexed shard of these texts, under their ids or under its own name and a number."""
    by_id = texts if isinstance(texts, Mapping) else {f"{name}{number}": text for number, text in enumerate(texts)}
    path = directory / f"{name}.parquet"
    pl.DataFrame({"id": list(by_id), "text": list(by_id.values())}).write_parquet(path)
    shard = Shard("web", name, str(path), "parquet", "text", "id")
    index_and_store(lake, landed(shard))
    return shard


def _rows(lake: Lake) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(lake.read("document_features"))).sort("shard", "doc_id")


def test_a_second_run_computes_nothing_and_writes_nothing(lake: Lake, tmp_path: Path) -> None:
    shard = _shard(lake, tmp_path, "a", sentences()[:20])
    first = update_document_features(lake, shard)
    Path(shard.uri).unlink()  # not even read
    again = update_document_features(lake, shard)
    assert (first.n_computed, first.n_kept, first.version) == (20, 0, 1)
    assert (again.n_computed, again.n_kept, again.version, lake.version("document_features")) == (0, 20, None, 1)
    assert again.table.sort_by("doc_id").equals(first.table.sort_by("doc_id"))


def test_only_new_and_changed_texts_are_computed_and_what_left_leaves(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {f"d{number:02}": text for number, text in enumerate(sentences()[:12])}
    update_document_features(lake, _shard(lake, tmp_path, "a", texts))
    changed = {**texts, "d03": "another text altogether", "new": "a new one"}
    del changed["d05"]
    shard = _shard(lake, tmp_path, "a", changed)
    seen: list[str] = []

    def and_noted(texts: Sequence[str]) -> pa.Table:
        seen.extend(texts)
        return measured(texts)

    monkeypatch.setattr(features_update, "measured", and_noted)
    found = update_document_features(lake, shard)
    assert sorted(seen) == ["a new one", "another text altogether"]
    assert (found.n_computed, found.n_kept, found.bytes_computed) == (2, 10, sum(map(len, seen)))
    rows = _rows(lake)
    assert dict(rows.select("doc_id", "text_sha256").rows()) == {
        doc_id: hashlib.sha256(text.encode()).hexdigest() for doc_id, text in changed.items()
    }
    for row in rows.to_dicts():
        assert row["repetition"] == pytest.approx(oracle.repeated(oracle.shingles(changed[row["doc_id"]], 4)))


def test_other_definitions_make_all_anew(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = _shard(lake, tmp_path, "a", sentences()[:5])
    update_document_features(lake, shard)
    monkeypatch.setattr(features_update, "FEATURES_VERSION", 2)
    assert update_document_features(lake, shard).n_computed == 5
    assert set(_rows(lake)["features_version"]) == {2}


@pytest.mark.parametrize("batch_bytes", [1, 300])
def test_batches_do_not_matter(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int) -> None:
    shard = _shard(lake, tmp_path, "a", sentences()[:15])
    whole = update_document_features(lake, shard).table
    lake.root.delete("tables/document_features")
    monkeypatch.setattr(features_update, "_BATCH_BYTES", batch_bytes)
    assert update_document_features(Lake(lake.root), shard).table.equals(whole)


def test_a_shard_that_is_not_indexed_and_a_text_that_is_another_are_refused(lake: Lake, tmp_path: Path) -> None:
    shard = _shard(lake, tmp_path, "a", sentences()[:3])
    with pytest.raises(ValueError, match=r"web.b is not indexed"):
        update_document_features(lake, Shard("web", "b", shard.uri, "parquet", "text", "id"))
    pl.DataFrame({"id": ["a0", "a1", "a2"], "text": ["x", "y", "z"]}).write_parquet(shard.uri)
    with pytest.raises(ValueError, match="the source changed since it was indexed"):
        update_document_features(lake, shard)
    assert lake.version("document_features") is None


def test_faults_of_a_partition_are_counted(lake: Lake, tmp_path: Path) -> None:
    update_document_features(lake, _shard(lake, tmp_path, "a", sentences()[:6]))
    rows = _rows(lake)
    wrong = pl.concat([rows[1:], rows[1:2], rows[2:3].with_columns(doc_id=pl.lit("nobody"))]).with_columns(
        repetition=pl.when(doc_id="a3").then(1.5).otherwise("repetition"),
        n_bytes=pl.when(doc_id="a4").then(0).otherwise("n_bytes"),
    )
    lake.replace("document_features", wrong.to_arrow(), where=_A)
    with connect(lake, "documents", "document_features", where=_A) as connection:
        assert feature_faults(connection) == {
            "without_features": 1,
            "features_of_no_document": 1,
            "repeated": 1,
            "out_of_range": 1,
            "of_another_length": 1,
        }


def test_a_retired_shard_has_no_features(lake: Lake, tmp_path: Path) -> None:
    for name in ("a", "b"):
        update_document_features(lake, _shard(lake, tmp_path, name, sentences()[:4]))
    assert retire_shard(lake, domain="web", shard="a").features == 4
    assert set(_rows(lake)["shard"]) == {"b"}
    assert stored_shards(lake) == {("web", "b")}


# --- duplicates

_BASE = " ".join(sentences()[:6])
_NEARLY = _BASE.replace("on day 5.", "on day five.")
_OTHER = " ".join(sentences()[10:16])
_POOL = [_BASE, _NEARLY, f"{_BASE} Indeed.", _OTHER, f"Well. {_OTHER}", "short", "also short", sentences()[20]]


def _marks(lake: Lake) -> dict[str, tuple[str | None, str | None]]:
    rows = _rows(lake).select("doc_id", "duplicate_group", "near_duplicate_cluster").rows()
    return {doc_id: (group, cluster) for doc_id, group, cluster in rows}


def _expected(texts: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Groups by text; clusters by going from document to document, as long as two share a text or a band."""
    bands = {doc_id: set(measured([text]).to_pylist()[0]["minhash_bands"]) for doc_id, text in texts.items()}
    found = {}
    for doc_id, text in texts.items():
        reached, ahead = {doc_id}, [doc_id]
        while ahead:
            one = ahead.pop()
            for other in texts:
                if other not in reached and (texts[one] == texts[other] or bands[one] & bands[other]):
                    reached.add(other)
                    ahead.append(other)
        same = sum(text == other for other in texts.values()) > 1
        group = hashlib.sha256(text.encode()).hexdigest() if same else None
        found[doc_id] = (group, min(reached) if len(reached) > 1 else None)
    return found


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(_POOL), st.sampled_from("abc")), min_size=1, max_size=12), st.randoms())
def test_groups_and_clusters_are_those_of_going_from_text_to_text_in_any_order(
    drawn: list[tuple[str, str]], rng: random.Random
) -> None:
    texts = {f"d{number}": text for number, (text, _) in enumerate(drawn)}
    rows = pl.DataFrame(pl.from_arrow(measured(list(texts.values())))).with_columns(
        doc_id=pl.Series(texts.keys()),
        shard=pl.Series([shard for _, shard in drawn]),
        text_sha256=pl.Series([hashlib.sha256(text.encode()).hexdigest() for text in texts.values()]),
        features_version=FEATURES_VERSION,
    )
    shuffled = rows[rng.sample(range(len(rows)), len(rows))]
    with duckdb.connect() as connection:
        connection.register("documents", rows.to_arrow())
        connection.register("document_features", shuffled.to_arrow())
        find_near_duplicates(connection)
        found = connection.sql("SELECT doc_id, duplicate_group, near_duplicate_cluster FROM found").fetchall()
    nothing = dict.fromkeys(texts, (None, None))
    assert nothing | {doc_id: (group, cluster) for doc_id, group, cluster in found} == _expected(texts)


def test_it_does_not_matter_which_shard_came_first(lake: Lake, tmp_path: Path) -> None:
    texts = {"a": {"x": _BASE, "y": _OTHER}, "b": {"k": _NEARLY}, "c": {"b": _BASE, "z": "short", "w": "short"}}
    marks, counts = [], []
    for order in ("abc", "cba"):
        other = Lake(Root.at(tmp_path / order))
        for name in order:
            update_document_features(other, _shard(other, tmp_path, name, texts[name]))
            if name == order[0]:
                mark_near_duplicates(other, "web")  # what is found early is corrected when the rest is there
        counts.append(mark_near_duplicates(other, "web"))
        marks.append(_marks(other))
        assert mark_near_duplicates(other, "web").shards_written == 0
    assert marks == [_expected({doc_id: text for of in texts.values() for doc_id, text in of.items()})] * 2
    for found in counts:
        assert (found.n_documents, found.n_duplicates, found.n_near_duplicates) == (6, 4, 5)
        assert (found.n_clusters, found.largest_cluster, found.digest) == (2, 3, counts[0].digest)


def test_near_texts_are_one_cluster_and_others_are_not(lake: Lake, tmp_path: Path) -> None:
    texts = {"x": _BASE, "b": _NEARLY, "c": _OTHER, "d": "short", "e": "short", "f": "also short"}
    update_document_features(lake, _shard(lake, tmp_path, "a", texts))
    mark_near_duplicates(lake, "web")
    of_short = hashlib.sha256(b"short").hexdigest()
    nothing = (None, None)
    assert _marks(lake) == {
        **dict.fromkeys(["b", "x"], (None, "b")),
        "c": nothing,
        "f": nothing,
        **dict.fromkeys(["d", "e"], (of_short, "d")),
    }


def test_what_left_the_corpus_or_is_another_text_by_now_counts_no_more(lake: Lake, tmp_path: Path) -> None:
    update_document_features(lake, _shard(lake, tmp_path, "a", {"one": _BASE, "two": _BASE, "three": _NEARLY}))
    update_document_features(lake, _shard(lake, tmp_path, "b", {"four": _BASE}))
    mark_near_duplicates(lake, "web")
    assert {cluster for _, cluster in _marks(lake).values()} == {"four"}
    _shard(lake, tmp_path, "b", {"four": "its text is another"})  # indexed, its features not yet computed
    _shard(lake, tmp_path, "a", {"one": _BASE, "three": _NEARLY})
    found = mark_near_duplicates(lake, "web")
    assert (found.n_documents, found.n_duplicates, found.n_near_duplicates) == (2, 0, 2)
    nothing = (None, None)
    assert _marks(lake) == {"four": nothing, "two": nothing, **dict.fromkeys(["one", "three"], (None, "one"))}


def test_domains_are_apart(lake: Lake, tmp_path: Path) -> None:
    update_document_features(lake, _shard(lake, tmp_path, "a", {"one": _BASE}))
    path = tmp_path / "code.parquet"
    pl.DataFrame({"id": ["one"], "text": [_BASE]}).write_parquet(path)
    code = Shard("code", "a", str(path), "parquet", "text", "id")
    index_and_store(lake, landed(code))
    update_document_features(lake, code)
    assert [mark_near_duplicates(lake, domain).n_near_duplicates for domain in ("web", "code")] == [0, 0]


def test_features_that_were_computed_meanwhile_are_not_overwritten(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_document_features(lake, _shard(lake, tmp_path, "a", {"one": _BASE, "two": _BASE}))
    files = lake.files

    def and_another_run_commits(*args: object, **kwargs: object) -> list[str]:
        found = files(*args, **kwargs)  # type: ignore[arg-type]
        if kwargs.get("where") == _A:
            monkeypatch.undo()
            update_document_features(lake, _shard(lake, tmp_path, "a", {"one": _BASE, "two": _BASE, "three": _OTHER}))
        return found

    monkeypatch.setattr(lake, "files", and_another_run_commits)
    found = mark_near_duplicates(lake, "web")
    assert (found.shards_written, found.shards_passed_over) == (0, 1)
    assert set(_marks(lake)) == {"one", "two", "three"}
    assert mark_near_duplicates(lake, "web").shards_written == 1
    assert _marks(lake)["two"][1] == "one"
