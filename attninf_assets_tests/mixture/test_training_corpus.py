"""write_training_corpus: weights, the global shuffle, the manifest."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attninf_assets.mixture import shuffle, training_corpus
from attninf_assets.mixture.manifest import CORPUS_SCHEMA, Manifest
from attninf_assets.mixture.training_corpus import MixedDocument, copies
from attninf_assets.mixture.verification import Findings, verify_training_corpus
from attninf_assets.store.root import Root

write_training_corpus = partial(training_corpus.write_training_corpus, n_bytes=100_000)


NOTHING = Findings([], [])


def _documents(n: int) -> list[MixedDocument]:
    draw = random.Random(0)
    return [
        MixedDocument(
            doc_id=f"{i}",
            domain=draw.choice(["web", "code"]),
            text=f"Text {i}: é " * draw.randrange(40),
            n_tokens=draw.choice([None, i]),
            selected=draw.random() < 0.3,
        )
        for i in range(n)
    ]


def _rows(root: Root) -> list[tuple[str, str, str, str]]:
    """(doc_id, domain, text, source) of every row, in the manifest's order."""
    rows = []
    for file in Manifest.read(root).files:
        fs, path = root.locate(file.path)
        table = pq.read_table(path, filesystem=fs, partitioning=None)
        assert table.schema.equals(CORPUS_SCHEMA)
        rows += [tuple(row.values()) for row in table.to_pylist()]
    return rows


def _expected(documents: list[MixedDocument], weights: dict[str, float], seed: int) -> Counter[tuple[str, ...]]:
    rows: Counter[tuple[str, ...]] = Counter()
    for one in documents:
        for source in ("corpus", "selected") if one.selected else ("corpus",):
            weight = Fraction(str(weights[source]))
            n = copies(weight, seed=seed, source=source, domain=one.domain, doc_id=one.doc_id)
            rows[one.doc_id, one.domain, one.text, source] += n
    return +rows


@st.composite
def _corpora(draw: st.DrawFn) -> list[MixedDocument]:
    ids = draw(st.lists(st.tuples(st.sampled_from(["web", "code"]), st.text(max_size=3)), max_size=25, unique=True))
    texts, counts = st.text(max_size=20), st.none() | st.integers(1, 9)
    return [MixedDocument(doc_id, domain, draw(texts), draw(counts), draw(st.booleans())) for domain, doc_id in ids]


_WEIGHTS = st.sampled_from([0.0, 0.3, 1.0, 1.5, 3.0])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=_corpora(),
    corpus_weight=_WEIGHTS,
    selected_weight=_WEIGHTS,
    rows_per_file=st.integers(1, 9),
    n_bytes=st.sampled_from([0, 1, 2**30, 2**33]),
    data=st.data(),
)
def test_the_rows_are_as_the_weights_say_whatever_the_order_of_arrival(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[MixedDocument],
    corpus_weight: float,
    selected_weight: float,
    rows_per_file: int,
    n_bytes: int,
    data: st.DataObject,
) -> None:
    one, other = (Root.at(tmp_path_factory.mktemp("corpus")) for _ in range(2))
    write = partial(
        write_training_corpus,
        seed=7,
        corpus_weight=corpus_weight,
        selected_weight=selected_weight,
        rows_per_file=rows_per_file,
    )
    manifest = write(documents, one)
    again = write(data.draw(st.permutations(documents)), other, n_bytes=n_bytes)
    assert manifest == again == Manifest.read(one)
    expected = _expected(documents, {"corpus": corpus_weight, "selected": selected_weight}, 7)
    assert Counter(_rows(one)) == expected
    assert [file.rows for file in manifest.files[:-1]] == [rows_per_file] * (len(manifest.files) - 1)
    for share in manifest.shares:
        those = {row: n for row, n in expected.items() if (row[1], row[3]) == (share.domain, share.source)}
        counts = {(d.doc_id, d.domain): d.n_tokens for d in documents}
        assert (share.documents, share.rows) == (len(those), sum(those.values()))
        assert share.tokens == sum(n * (counts[row[0], row[1]] or 0) for row, n in those.items())
        assert share.rows_without_token_count == sum(n for row, n in those.items() if not counts[row[0], row[1]])
    assert sum(share.rows for share in manifest.shares) == expected.total()
    assert verify_training_corpus(one) == NOTHING


def test_the_same_documents_and_seed_give_the_same_bytes_through_every_spill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = _documents(600)
    monkeypatch.setattr(training_corpus, "_ROW_GROUP_BYTES", 5_000)
    monkeypatch.setattr(training_corpus, "_BUCKET_BYTES", 100)
    one, other = Root.at(tmp_path / "one"), Root.at(tmp_path / "other")
    write_training_corpus(documents, one, seed=1, selected_weight=2, rows_per_file=250, n_bytes=0)
    monkeypatch.setattr(shuffle, "_BUFFERED_CHARACTERS", 3_000)
    write_training_corpus(documents[::-1], other, seed=1, selected_weight=2, rows_per_file=250, n_bytes=1_700)
    for path in one.list("training_corpus"):
        assert one.read_bytes(path) == other.read_bytes(path)
    assert one.list("training_corpus") == other.list("training_corpus")
    first = pq.read_metadata(f"{one.uri}/{Manifest.read(one).files[0].path}")
    assert first.num_row_groups > 5
    assert first.row_group(0).column(2).compression == "ZSTD"


@pytest.mark.parametrize(("n", "selected_weight"), [(300, 0.0), (2_000, 1.0), (2_000, 3.5)])
def test_memory_holds_no_more_text_at_a_time_however_large_the_corpus_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, selected_weight: float
) -> None:
    stated = 20_000
    monkeypatch.setattr(training_corpus, "_BUCKET_BYTES", stated)
    monkeypatch.setattr(shuffle, "_BUFFERED_CHARACTERS", stated)
    held: list[int] = []
    in_order = shuffle.Shuffle.in_order

    def watched(self: shuffle.Shuffle) -> Iterator[pa.Table]:
        for table in in_order(self):
            held.append(pc.sum(pc.binary_length(table["text"])).as_py())
            yield table

    monkeypatch.setattr(shuffle.Shuffle, "in_order", watched)
    documents = _documents(n)
    n_bytes = sum(len(document.text.encode()) for document in documents)
    training_corpus.write_training_corpus(
        documents, Root.at(tmp_path), n_bytes=n_bytes, seed=1, selected_weight=selected_weight
    )
    assert len(held) >= n_bytes / stated
    assert max(held) < 1.5 * stated


def test_the_shuffle_is_global_and_another_seed_gives_another(tmp_path: Path) -> None:
    documents = _documents(400)
    orders = []
    for seed in (1, 2):
        root = Root.at(tmp_path / str(seed))
        write_training_corpus(documents, root, seed=seed, rows_per_file=100)
        orders.append([(row[0], row[3]) for row in _rows(root)])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    for order in orders:
        quarters = [sum(source == "selected" for _, source in order[i : i + 100]) for i in range(0, 400, 100)]
        assert min(quarters) > 8  # of some 23 expected in each: no quarter is without
        positions = [int(doc_id) for doc_id, source in order if source == "corpus"]
        ascents = sum(a < b for a, b in itertools.pairwise(positions))
        assert 160 < ascents < 240  # 200 expected of a random order of 400


def test_fractional_weights_are_kept_on_average_and_independently_for_each_source() -> None:
    drawn = {
        source: [copies(Fraction("1.3"), seed=5, source=source, domain="web", doc_id=str(i)) for i in range(4_000)]
        for source in ("corpus", "selected")
    }
    for counts in drawn.values():
        assert set(counts) == {1, 2}
        assert abs(sum(counts) / 4_000 - 1.3) < 0.03  # 4 standard deviations
    both = sum(a == b == 2 for a, b in zip(drawn["corpus"], drawn["selected"], strict=True))
    assert abs(both / 4_000 - 0.09) < 0.02


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused_by_name_and_value(tmp_path: Path, weight: float) -> None:
    with pytest.raises(ValueError, match=f"selected_weight {weight}"):
        write_training_corpus([], Root.at(tmp_path), seed=1, selected_weight=weight)
    with pytest.raises(ValueError, match=f"corpus_weight {weight}"):
        write_training_corpus([], Root.at(tmp_path), seed=1, corpus_weight=weight)


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows_per_file 0"):
        write_training_corpus([], Root.at(tmp_path), seed=1, rows_per_file=0)


def test_a_document_given_twice_is_refused_and_the_old_corpus_stays(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    documents = _documents(20)
    write_training_corpus(documents, root, seed=1)
    before = root.list("training_corpus")
    with pytest.raises(ValueError, match=r"document '3' of domain .* was given twice"):
        write_training_corpus([*documents, replace(documents[3], text="another")], root, seed=2)
    assert root.list("training_corpus") == before
    assert verify_training_corpus(root) == NOTHING


def test_a_run_that_dies_leaves_the_old_corpus_whole_and_the_next_removes_its_debris(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = _documents(60)
    old = write_training_corpus(documents, root, seed=1, rows_per_file=20, provenance={"fraction": 0.2})

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as broken:
        broken.setattr(Manifest, "write", killed)
        with pytest.raises(KilledError):
            write_training_corpus(documents, root, seed=2, rows_per_file=20)
    root.write_bytes("training_corpus/_staging-of-a-killed-run/000000.parquet", b"half")
    assert Manifest.read(root) == old
    assert len(_rows(root)) == sum(file.rows for file in old.files)
    found = verify_training_corpus(root)
    assert found.faults == []
    assert len(found.leftovers) == len(old.files) + 1
    assert found.leftovers[-1] == "training_corpus/_staging-of-a-killed-run"
    new = write_training_corpus(documents, root, seed=3, rows_per_file=20)
    named = sorted(file.path for file in new.files)
    assert root.list("training_corpus") == ["training_corpus/manifest.json", *named]
    assert verify_training_corpus(root) == NOTHING


def test_documents_that_fail_midway_leave_the_old_corpus(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    write_training_corpus(_documents(10), root, seed=1)

    def broken_source() -> Iterator[MixedDocument]:
        yield from _documents(5)
        raise OSError("source gone")

    with pytest.raises(OSError, match="source gone"):
        write_training_corpus(broken_source(), root, seed=2)
    assert verify_training_corpus(root) == NOTHING


def test_an_empty_corpus_is_a_manifest_without_files(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    assert verify_training_corpus(root) == Findings(["training_corpus/manifest.json: missing"], [])
    assert write_training_corpus([], root, seed=1).files == ()
    assert verify_training_corpus(root) == NOTHING


def test_verification_names_every_discrepancy(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    manifest = write_training_corpus(_documents(60), root, seed=1, rows_per_file=15)
    first, second, third, *_ = manifest.files

    def faults() -> list[str]:
        return verify_training_corpus(root).faults

    root.write_bytes("training_corpus/stray.parquet", b"")
    assert verify_training_corpus(root) == Findings([], ["training_corpus/stray.parquet"])
    root.delete("training_corpus/stray.parquet")

    files = (replace(first, rows=14), *manifest.files[1:])
    shares = (replace(manifest.shares[0], rows=1), *manifest.shares[1:])
    replace(manifest, files=files, shares=shares).write(root)
    assert faults()[0] == f"{first.path}: 15 rows, the manifest says 14"
    assert faults()[1].startswith("domain code, source corpus:")
    assert faults()[1].endswith("the manifest says 1")
    assert len(faults()) == 2
    manifest.write(root)

    content = root.read_bytes(first.path)
    root.write_bytes(first.path, content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    root.write_bytes(second.path, content[:10])
    root.delete(third.path)
    assert [fault.split(": ", 1)[0] for fault in faults()] == [first.path, second.path, third.path]
    assert "sha256" in faults()[0]
    assert "10 bytes" in faults()[1]
    assert "missing" in faults()[2]

    write_training_corpus(_documents(60), root, seed=1, rows_per_file=15)
    assert faults() == []


def test_the_manifest_is_plain_json_with_the_callers_provenance(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    write_training_corpus(_documents(3), root, seed=9, provenance={"fraction": 0.2, "budget": "tokens"})
    content = json.loads((tmp_path / "training_corpus" / "manifest.json").read_text())
    assert content["provenance"] == {"fraction": 0.2, "budget": "tokens"}
    assert content["seed"] == 9
    assert set(content["files"][0]) == {"path", "rows", "bytes", "sha256"}
