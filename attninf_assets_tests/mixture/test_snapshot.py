"""A mix is of one state of the tables, whatever is written meanwhile: its provenance names exactly its rows."""

import datetime
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.indexing import index_shard
from attninf_assets.mixture.manifest import Manifest
from attninf_assets.mixture.mixed_documents import mixed_documents
from attninf_assets.mixture.snapshot import MixSnapshot
from attninf_assets.mixture.training_corpus import write_training_corpus
from attninf_assets.selection.definitions import Budget, Keep, SelectionDefinition
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.processes import FORKED

SELECTOR = "f"
PAPER = {"selection": "paper"}
FRACTIONS = (0.3, 0.6)
N_DOCUMENTS = 20  # of each shard
N_MIXES = 12  # beside a writer that never rests; raise it to look longer
_PATIENCE = 120  # seconds


@dataclass
class InterruptedLake(Lake):
    """A lake whose reader is interrupted: what is to be done before its call number n comes with that number."""

    root: Root
    before: Sequence[tuple[int, Callable[[], object]]] = ()
    calls: Iterator[int] = field(default_factory=count)

    def snapshot(self, name: str, *, version: int | None = None) -> Any:
        call = next(self.calls)
        for number, change in self.before:
            if number == call:
                change()
        return super().snapshot(name, version=version)


def _shards(directory: Path) -> dict[str, Shard]:
    shards = [
        Shard(domain, name, str(directory / f"{domain}-{name}.jsonl"), "jsonl", "text", "id")
        for domain in ("code", "web")
        for name in "ab"
    ]
    return {shard.key: shard for shard in shards}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Four shards in two domains, indexed, scored and selected from."""
    lake = Lake(Root.at(tmp_path / "root"))
    for shard in _shards(tmp_path).values():
        lines = [{"id": f"{shard.key}-{n}", "text": f"Text {n} of {shard.key}."} for n in range(N_DOCUMENTS)]
        Path(shard.uri).write_text("".join(json.dumps(line) + "\n" for line in lines))
        where = {"domain": shard.domain, "shard": shard.name}
        documents = index_shard(shard).documents
        lake.replace("documents", documents, where=where)
        lake.replace("scores", _scored(documents, seed=0), where=where)
    _threshold(lake, 0.3)
    _select(lake)
    return lake


def _scored(documents: pa.Table, *, seed: int) -> pa.Table:
    draw = random.Random(seed)
    rows = [
        {name: row[name] for name in ("doc_id", "domain", "shard", "text_sha256")}
        | {
            "n_tokens": draw.randrange(1, 50),
            "loss_base": 1.0,
            "loss_reference": 1.0,
            "score": draw.choice([0.5, 1, 2]),
        }
        | {"selector_fingerprint": SELECTOR, "scored_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)}
        for row in documents.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["scores"])


def _threshold(lake: Lake, fraction: float, budget: Budget = "documents") -> None:
    definition = SelectionDefinition(keep=Keep(fraction=fraction, of=budget))
    with connect(lake, "scores") as connection:
        found = find_thresholds(connection, selector_fingerprint=SELECTOR, definition=definition)
    lake.replace("thresholds", found, where=PAPER)


def _select(lake: Lake) -> None:
    with connect(lake, "scores", "thresholds") as connection:
        lake.replace("selected_subset", selected(connection, selector_fingerprint=SELECTOR), where=PAPER)


def _rescore(lake: Lake, directory: Path) -> None:
    for shard in _shards(directory).values():
        where = {"domain": shard.domain, "shard": shard.name}
        lake.replace("scores", _scored(lake.read("documents", where=where), seed=1), where=where)


def _mix(lake: Lake, directory: Path) -> Manifest:
    snapshot = MixSnapshot.take(lake, selector_fingerprint=SELECTOR)
    return write_training_corpus(
        mixed_documents(snapshot, _shards(directory), storage_options={}),
        lake.root,
        n_bytes=snapshot.n_bytes,
        seed=1,
        rows_per_file=50,
        provenance=snapshot.provenance,
    )


def _require_that_rows_are_of_the_provenance(manifest: Manifest, lake: Lake, scores: pa.Table) -> None:
    """The slow way: rank the scores in Python, take what the provenance says, compare with the rows."""
    assert Manifest.read(lake.root) == manifest
    rows = pl.concat([pl.read_parquet(f"{lake.root.uri}/{file.path}") for file in manifest.files])
    for said in manifest.provenance["selection"]:
        ranked = sorted(
            (
                (row["score"], row["doc_id"], row["n_tokens"])
                for row in scores.to_pylist()
                if row["domain"] == said["domain"]
            ),
            reverse=True,
        )
        kept = ranked[: said["n_selected"]]
        assert (said["threshold_score"], said["threshold_doc_id"]) == kept[-1][:2]
        if said["budget"] == "documents":
            assert said["n_selected"] == round(said["fraction"] * len(ranked))
        mixed = rows.filter(domain=said["domain"], source="selected")["doc_id"].to_list()
        assert Counter(mixed) == Counter(doc_id for _, doc_id, _ in kept)
        assert Counter(rows.filter(domain=said["domain"], source="corpus")["doc_id"]) == Counter(r[1] for r in ranked)
        tokens = {share.source: share.tokens for share in manifest.shares if share.domain == said["domain"]}
        assert tokens == {"corpus": sum(r[2] for r in ranked), "selected": sum(r[2] for r in kept)}


def _calls_of_one_mix(lake: Lake, directory: Path) -> int:
    watched = InterruptedLake(lake.root)
    _mix(watched, directory)
    return next(watched.calls)


def test_wherever_another_selection_comes_in_a_mix_is_of_one_or_refused(lake: Lake, tmp_path: Path) -> None:
    scores = lake.read("scores")
    refused = 0
    mixed: Counter[float] = Counter()
    calls = _calls_of_one_mix(lake, tmp_path)
    assert calls > 12
    # At every call but those that read shard after shard alike; at the first, which take the versions, also with the
    # selection some calls later.
    for begin, later in [(n, 0) for n in range(min(calls, 15))] + [(n, later) for n in range(5) for later in (1, 2)]:
        _threshold(lake, 0.3)
        _select(lake)
        changes = [(begin, partial(_threshold, lake, 0.6)), (begin + later, partial(_select, lake))]
        try:
            manifest = _mix(InterruptedLake(lake.root, changes), tmp_path)
        except ValueError as error:
            assert "materialize selected_subset again" in str(error)  # noqa: PT017
            refused += 1
            continue
        _require_that_rows_are_of_the_provenance(manifest, lake, scores)
        mixed[manifest.provenance["selection"][0]["fraction"]] += 1
    assert set(mixed) == {0.3, 0.6}
    assert refused


def test_whatever_is_written_after_the_snapshot_the_mix_is_of_it(lake: Lake, tmp_path: Path) -> None:
    """Scores, index, thresholds and selection all change; the mix and its counts are of the time before."""
    scores = lake.read("scores")
    snapshot = MixSnapshot.take(lake, selector_fingerprint=SELECTOR)
    _rescore(lake, tmp_path)
    _threshold(lake, 0.6, "tokens")
    _select(lake)
    shard = {"domain": "web", "shard": "a"}
    lake.replace("documents", lake.read("documents", where=shard).slice(5), where=shard)
    manifest = write_training_corpus(
        mixed_documents(snapshot, _shards(tmp_path), storage_options={}),
        lake.root,
        n_bytes=snapshot.n_bytes,
        seed=1,
        provenance=snapshot.provenance,
    )
    _require_that_rows_are_of_the_provenance(manifest, lake, scores)


def _write_for_ever(root: Root, begun: Any) -> None:
    lake = Lake(root)
    while True:
        for fraction in FRACTIONS[::-1]:
            _threshold(lake, fraction)
            _select(lake)
            begun.set()


def test_beside_a_process_that_selects_all_the_time_every_manifest_is_of_its_rows(lake: Lake, tmp_path: Path) -> None:
    scores = lake.read("scores")
    begun = FORKED.Event()
    writer = FORKED.Process(target=_write_for_ever, args=(lake.root, begun))
    writer.start()
    try:
        assert begun.wait(_PATIENCE)
        mixes = 0
        for _ in range(50 * N_MIXES):
            try:
                manifest = _mix(lake, tmp_path)
            except ValueError as error:
                assert "materialize selected_subset again" in str(error)  # noqa: PT017
                continue
            _require_that_rows_are_of_the_provenance(manifest, lake, scores)
            mixes += 1
            if mixes == N_MIXES:
                break
        assert mixes
        assert writer.is_alive()
    finally:
        writer.kill()
        writer.join()


def _provenance(lake: Lake) -> dict[str, Any]:
    return MixSnapshot.take(lake, selector_fingerprint=SELECTOR).provenance


def test_the_same_content_written_again_is_the_same_provenance(lake: Lake) -> None:
    before = _provenance(lake)
    for name in ("documents", "scores", "selected_subset"):
        rows = lake.read(name)
        lake.replace(name, rows.take(list(reversed(range(len(rows))))))
    assert _provenance(lake) == before


def test_another_count_of_tokens_is_another_provenance(lake: Lake) -> None:
    before = _provenance(lake)
    where = {"domain": "web", "shard": "a"}
    chosen = set(lake.read("selected_subset")["doc_id"].to_pylist())
    rows = lake.read("scores", where=where).to_pylist()
    (unselected, *_) = (row for row in rows if row["doc_id"] not in chosen)
    unselected["n_tokens"] += 1
    lake.replace("scores", pa.Table.from_pylist(rows, schema=TABLES["scores"]), where=where)
    after = _provenance(lake)
    assert after != before
    assert after["digests"]["selected_subset"] == before["digests"]["selected_subset"]


def _without_last_selected(lake: Lake) -> pa.Table:
    rows = lake.read("selected_subset").sort_by([("score", "descending"), ("doc_id", "descending")])
    return rows.slice(0, len(rows) - 1)


def _exchanged(lake: Lake) -> pa.Table:
    """One selected document in place of another, of the same domain and tokens."""
    rows = lake.read("selected_subset").to_pylist()
    chosen = {row["doc_id"] for row in rows}
    (other, *_) = (
        row
        for row in lake.read("scores").to_pylist()
        if row["doc_id"] not in chosen and row["domain"] == rows[0]["domain"]
    )
    rows[0] |= {name: other[name] for name in ("doc_id", "shard", "score")} | {"order_key": other["score"]}
    return pa.Table.from_pylist(rows, schema=TABLES["selected_subset"])


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        ("selected_subset", _without_last_selected, r"11 documents are selected, its threshold says 12"),
        ("selected_subset", _exchanged, r"the last document selected is .*|have another score"),
        ("scores", lambda lake: lake.read("scores").slice(0, 0), r"24 selected documents have another score or text"),
        ("documents", lambda lake: lake.read("documents").slice(0, 0), r"24 selected documents .* 'code\.a-"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(
    lake: Lake, table: str, change: Callable[[Lake], pa.Table], says: str
) -> None:
    lake.replace(table, change(lake))
    with pytest.raises(ValueError, match=says):
        MixSnapshot.take(lake, selector_fingerprint=SELECTOR)


def test_a_selected_document_whose_text_changed_since_it_was_scored_is_refused(lake: Lake) -> None:
    chosen = lake.read("selected_subset")["doc_id"][0].as_py()
    rows = lake.read("documents")
    changed = pc.if_else(pc.equal(rows["doc_id"], chosen), "another", rows["text_sha256"])
    place = rows.schema.get_field_index("text_sha256")
    lake.replace("documents", rows.set_column(place, rows.schema.field(place), changed))
    with pytest.raises(ValueError, match=f"1 selected documents have another score or text .*'{chosen}'"):
        MixSnapshot.take(lake, selector_fingerprint=SELECTOR)


def test_thresholds_that_count_other_tokens_are_told_apart(lake: Lake) -> None:
    thresholds = lake.read("thresholds").to_pylist()
    thresholds[0] |= {"tokens_selected": thresholds[0]["tokens_selected"] + 1}
    lake.replace("thresholds", pa.Table.from_pylist(thresholds, schema=TABLES["thresholds"]))
    with pytest.raises(ValueError, match=r"domain 'code': \d+ tokens are selected, its threshold says"):
        MixSnapshot.take(lake, selector_fingerprint=SELECTOR)


def test_a_missing_table_is_named_with_what_writes_it(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    with pytest.raises(ValueError, match="table thresholds does not exist: materialize score_thresholds first"):
        MixSnapshot.take(lake, selector_fingerprint=SELECTOR)
