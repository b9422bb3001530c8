"""Whatever becomes of a table's file, it is noticed, and the named commands bring back what was there."""

import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from attninf_assets.cli import app
from attninf_assets.corpus.documents import LandedShard
from attninf_assets.corpus.stored_index import index_and_store
from attninf_assets.orchestration.connections.resources import CorpusResource
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.scores.staging import STAGED_SCORES, StagedScores
from attninf_assets.selector.model_files import list_of
from attninf_assets.selector.stored import current_fingerprint, pinned_model
from attninf_assets.store.checksums import record_of
from attninf_assets.store.damage import DamagedTableError
from attninf_assets.store.retirement import retire_shard
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.scrub import scrub
from attninf_assets.upkeep.inspection import find_damage
from attninf_assets.upkeep.repair import mend, plan_of, reindex
from attninf_assets_tests.support.pipeline import (
    PROBES,
    SELECTOR,
    SHARDS,
    Pipeline,
    backfilled,
    build_pipeline,
    put_back,
)

N_FLIPS = 40  # seeded; raise it for a longer search
_CLOCKS = ["scored_at", "seconds", "committed_at"]
_LETTERS_A = {"domain": "letters", "shard": "a"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline in which everything was materialized, a row refused, and every file recorded as sound."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(tmp_path_factory.mktemp("repair"), monkeypatch)
        path = pipeline.directory / "source/notes/first.jsonl"
        path.write_text(path.read_text() + '{"key": "notes.first-0", "body": "an id for the second time"}\n')
        pipeline.run_everything()
        assert scrub(pipeline.lake) == []
        yield pipeline


@pytest.fixture
def pipeline(finished: Pipeline, tmp_path: Path) -> Iterator[Pipeline]:
    """The finished pipeline, put back after the test."""
    with put_back(finished, tmp_path / "kept"):
        yield finished


def attninf(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def everything(pipeline: Pipeline) -> dict[str, pl.DataFrame]:
    """The rows of all tables in a fixed order, without what clocks said."""
    tables = {name: pipeline.rows(name).drop(_CLOCKS, strict=False) for name in TABLES if name != "scoring_runs"}
    return {name: rows.sort(rows.columns[:4]) for name, rows in tables.items()}


def files_of(pipeline: Pipeline) -> list[Path]:
    return [Path(file) for name in TABLES for file in pipeline.lake.files(name)]


def flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def places(path: Path) -> dict[str, range]:
    """The parts of a Parquet file: where it begins, its pages, its footer, and where it ends."""
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    parts = (0, 4, footer, len(data) - 8, len(data))
    return {
        name: range(*bounds)
        for name, bounds in zip(("magic", "pages", "footer", "end"), itertools.pairwise(parts), strict=True)
    }


def corpus() -> CorpusResource:
    resource = resources_from(read_settings())["corpus"]
    assert isinstance(resource, CorpusResource)
    return resource


def test_every_flipped_bit_is_noticed_and_its_file_alone_is_named(pipeline: Pipeline) -> None:
    dice, files = random.Random(0), files_of(pipeline)
    for number in range(N_FLIPS):
        path = dice.choice(files)
        name, place = list(places(path).items())[number % 4]
        at, bit = dice.choice(place), dice.randrange(8)
        flip(path, at, bit)
        found = scrub(pipeline.lake)
        assert [f"{pipeline.lake.root.uri}/{damage.path}" for damage in found] == [str(path)], name
        flip(path, at, bit)
    assert scrub(pipeline.lake) == []


@pytest.mark.parametrize("damage", ["flipped", "emptied", "missing"])
def test_what_repair_names_brings_every_table_back(pipeline: Pipeline, damage: str) -> None:
    before, dice = everything(pipeline), random.Random(1)
    selection = ["score_thresholds", "selected_subset", "score_bands"]
    undamaged = {path: path.read_bytes() for path in files_of(pipeline)}
    for name in TABLES:
        path = Path(pipeline.lake.files(name)[0])
        del undamaged[path]
        if damage == "flipped":
            flip(path, dice.choice(places(path)["pages"]), dice.randrange(8))
        elif damage == "emptied":
            path.write_bytes(b"")
        else:
            path.unlink()

    dry = attninf("repair")
    assert dry.exit_code == 3
    assert dry.stdout.count("damaged: ") == len(TABLES)
    assert len(scrub(pipeline.lake)) == len(TABLES), "a dry run mends nothing"

    done = attninf("repair", "--apply")
    assert done.exit_code == 0, done.output
    indexed = [line.split()[0] for line in done.stdout.splitlines() if "is indexed again" in line]
    assets = [line.partition("--assets ")[2] for line in done.stdout.splitlines() if "dg launch --assets" in line]
    assert set(indexed) == {SHARDS[0], SHARDS[2]}
    selections = {f"{asset} --partition paper" for asset in ("score_thresholds", "selected_subset")}
    assert set(assets) == {"retrieval_probes", "retrieval_heads", "near_duplicates", "score_bands"} | selections
    assert len(pipeline.rows("scoring_runs")) == 2
    assert scrub(pipeline.lake) == []
    assert {path: path.read_bytes() for path in undamaged} == undamaged

    pipeline.run([asset for asset in SELECTOR if asset in assets], config=PROBES)
    for asset, keys in backfilled(done.stdout).items():
        for key in keys:
            pipeline.run([asset], key)
    pipeline.run(["near_duplicates", *selection])
    after = everything(pipeline)
    for name, rows in before.items():
        assert rows.equals(after[name]), name
    assert attninf("repair").exit_code == 0


def test_a_damaged_index_stops_its_domain_with_the_command_that_ends_that(pipeline: Pipeline) -> None:
    path = Path(pipeline.lake.files("documents", where=_LETTERS_A)[0])
    path.write_bytes(path.read_bytes()[:-50])
    sources = corpus().open()
    other = sources.find("letters.b")
    for blocked in (
        lambda: index_and_store(pipeline.lake, other),
        lambda: retire_shard(pipeline.lake, domain="letters", shard="a"),
    ):
        with pytest.raises(DamagedTableError, match=rf"tables/documents: damaged: .*{path.name}.*attninf repair"):
            blocked()
    index_and_store(pipeline.lake, sources.find("notes.first"))
    assert attninf("repair", "--apply").exit_code == 0
    assert not index_and_store(pipeline.lake, other).changed
    assert retire_shard(pipeline.lake, domain="letters", shard="a").documents == 25


def test_a_repair_that_was_interrupted_is_finished_by_the_next(pipeline: Pipeline) -> None:
    before = everything(pipeline)
    Path(pipeline.lake.files("documents", where=_LETTERS_A)[0]).write_bytes(b"")
    mend(pipeline.lake, plan_of(pipeline.lake, scrub(pipeline.lake)))
    assert scrub(pipeline.lake) == []
    assert plan_of(pipeline.lake, []).reindex == ("letters.a",)
    assert attninf("repair", "--apply").exit_code == 0
    assert everything(pipeline)["documents"].equals(before["documents"])
    assert plan_of(pipeline.lake, []).reindex == ()


def test_a_shard_whose_source_is_gone_is_named_and_does_not_stop_the_others(pipeline: Pipeline) -> None:
    for shard in ("a", "b"):
        Path(pipeline.lake.files("documents", where={"domain": "letters", "shard": shard})[0]).write_bytes(b"")
    plan = plan_of(pipeline.lake, scrub(pipeline.lake))
    mend(pipeline.lake, plan)
    sources = corpus().open()

    def find(key: str) -> LandedShard:
        if key == "letters.a":
            raise ValueError("its file is gone")
        return sources.find(key)

    failed = reindex(pipeline.lake, plan, find=find)
    assert {key: str(error) for key, error in failed.items()} == {"letters.a": "its file is gone"}
    assert set(pipeline.rows("documents")["shard"]) == {"b", "first"}


def test_a_damaged_log_is_put_back_and_what_else_is_damaged_is_found_then(pipeline: Pipeline) -> None:
    before = everything(pipeline)
    commit = Path(pipeline.lake.root.table_uri("documents")) / "_delta_log/00000000000000000001.json"
    sound = commit.read_bytes()
    flip(commit, 100, 0)
    flip(Path(pipeline.lake.files("documents", where=_LETTERS_A)[0]), 50, 0)
    assert attninf("repair").exit_code == 3
    done = attninf("repair", "--apply")
    assert done.exit_code == 0, done.output
    assert f"tables/documents/_delta_log/{commit.name} was put back as it was copied" in done.stdout
    assert "letters.a is indexed again" in done.stdout
    assert commit.read_bytes() == sound
    assert everything(pipeline)["documents"].equals(before["documents"])


def test_a_damaged_log_of_which_no_copy_was_kept_is_named_and_left_to_a_person(pipeline: Pipeline) -> None:
    shutil.rmtree(Path(pipeline.lake.root.uri) / "checksums/thresholds")
    commit = Path(pipeline.lake.root.table_uri("thresholds")) / "_delta_log/00000000000000000001.json"
    commit.write_bytes(commit.read_bytes()[:-10])
    done = attninf("repair", "--apply")
    assert done.exit_code == 3
    assert "thresholds: its log is damaged, and no copy was kept" in done.stdout
    assert commit.exists()


def test_a_damaged_record_of_checksums_is_made_anew(pipeline: Pipeline) -> None:
    record = Path(pipeline.lake.root.uri) / record_of("scores")
    flip(record, 200, 0)
    before = everything(pipeline)
    assert attninf("repair", "--apply").exit_code == 0
    assert attninf("repair").exit_code == 0
    assert record.exists()
    assert everything(pipeline)["scores"].equals(before["scores"])


def test_a_root_without_tables_is_bad_input(tmp_path: Path, finished: Pipeline) -> None:
    done = attninf("repair", "--root", str(tmp_path))
    assert done.exit_code == 2
    assert done.stderr == f"attninf repair: {tmp_path}: no tables there; give --root or set ATTNINF_ROOT\n"


def test_what_is_no_table_is_named_and_comes_back_by_what_repair_names(pipeline: Pipeline) -> None:
    root = pipeline.lake.root
    pipeline.run(["rescoring_preview"])
    staged = StagedScores(root, "f", "letters", "a")
    staged.add(pipeline.lake.read("scores", columns=STAGED_SCORES.names, where=_LETTERS_A))
    model = pinned_model(root).directory
    other = f"selectors/{64 * '0'}"  # pinned once, and in use no more
    for path in root.list(model):
        root.write_bytes(f"{other}/{path.rpartition('/')[2]}", root.read_bytes(path))
    root.write_bytes(list_of(other), root.read_bytes(list_of(model)))
    assert find_damage(pipeline.lake, thorough=True) == []
    parts = [path for path in root.list("training_corpus") if path.endswith(".parquet")]
    named: dict[str, str | None] = {
        f"{model}/tokenizer.json": "selector_model",
        "selectors/current.json": "retrieval_heads",
        root.list("previews")[0]: "rescoring_preview",
        parts[0]: "training_corpus",
        root.list("selectors/detections")[0]: "",  # retrieval_heads makes it again
        root.list(staged.directory)[0]: None,
        f"{other}/model.safetensors": None,
    }
    before = {path: root.read_bytes(path) for path in named}
    for path in named:
        flip(Path(root.uri) / path, len(before[path]) // 2, 0)
    assert {damage.path for damage in find_damage(pipeline.lake, thorough=True)} == set(named)
    assert parts[0] not in {damage.path for damage in find_damage(pipeline.lake, thorough=False)}, "of the same size"

    done = attninf("repair", "--apply")
    assert done.exit_code == 0, done.output
    assets = [line.partition("--assets ")[2] for line in done.stdout.splitlines() if "dg launch --assets" in line]
    assert assets == [asset for asset in named.values() if asset]
    for asset in assets:
        pipeline.run([asset], config=PROBES)
    assert find_damage(pipeline.lake, thorough=True) == []
    assert attninf("repair").exit_code == 0
    for path, made_by in named.items():
        assert root.exists(path) == (made_by is not None), path
        if made_by not in {None, "rescoring_preview"}:
            assert root.read_bytes(path) == before[path], path
    assert current_fingerprint(root)
