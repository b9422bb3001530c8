"""The files that a corpus file's globs match become shards, found by their keys."""

import re
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attninf_assets.corpus import discovery
from attninf_assets.corpus.config import CorpusConfig, DomainSource, Glob, load_corpus_config
from attninf_assets.corpus.discovery import Corpus
from attninf_assets.corpus.documents import shard_name
from attninf_assets.store.filesystems import FoundFile, StorageOptions, filesystem_for, found_files

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
    shards = Corpus(load_corpus_config(path)).shards()
    assert [shard.key for shard in shards] == ["web.a", "web.b"]
    assert {(shard.format, shard.text_column, shard.id_column) for shard in shards} == {("jsonl.gz", "text", None)}


@pytest.mark.parametrize(
    ("glob", "told"),
    [
        ("web/*.jsonl", r"'web/\*.jsonl'; .*/web exists and holds a.parquet"),
        ("wbe/data/*.jsonl", r"'wbe/data/\*.jsonl'; .* exists and holds corpus.yaml, web$"),
        ("web", r"'web', which is a folder; name its files, as in 'web/\*.jsonl'"),
        ("[web/x.jsonl, 'web/{y,z}.jsonl']", r"'web/x.jsonl'; (?s:.)*'web/\{y,z\}.jsonl'; "),
    ],
)
def test_a_domain_whose_glob_matches_nothing_is_told_with_what_is_there_instead(
    tmp_path: Path, glob: str, told: str
) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.parquet").touch()
    written = f"domains:\n  web: {_GOOD}\n  code: {{files: {glob}, format: jsonl}}\n"
    corpus = Corpus(load_corpus_config(_write(tmp_path, written)))
    shards = corpus.shards()
    assert [shard.key for shard in shards] == ["web.a"]
    with pytest.raises(
        ValueError, match=rf"corpus.yaml: .*may_be_empty: true(?s:.)*domains.code.files: nothing .*{told}"
    ):
        corpus.require_files(shards)
    waiting = written.replace("format: jsonl}", "format: jsonl, may_be_empty: true}")
    Corpus(load_corpus_config(_write(tmp_path, waiting))).require_files(shards)


def test_a_list_of_files_and_globs_is_one_domain_and_a_file_that_two_find_is_one_shard(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.parquet").touch()
        (tmp_path / f"deep-{name}").mkdir()
        (tmp_path / f"deep-{name}" / "x.parquet").touch()
    files = "[a.parquet, '?.parquet', 'deep-{a,b}/*.parquet']"
    path = _write(tmp_path, f"domains:\n  web: {{files: {files}, format: parquet}}\n")
    corpus = Corpus(load_corpus_config(path))
    shards = corpus.shards()
    below = [shard.uri.removeprefix(f"{tmp_path}/") for shard in shards]
    assert sorted(below) == ["a.parquet", "b.parquet", "c.parquet", "deep-a/x.parquet", "deep-b/x.parquet"]
    for shard in shards:
        assert corpus.find(shard.key).shard == Corpus(corpus.config).find(shard.key).shard == shard


def test_two_globs_whose_files_have_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.parquet").touch()
    path = _write(tmp_path, "domains:\n  web: {files: ['a/*', 'b/*'], format: parquet}\n")
    with pytest.raises(ValueError, match=r"'a/\*', 'b/\*' matches two files .*/a/x.parquet and .*/b/x.parquet"):
        Corpus(load_corpus_config(path)).shards()


def test_two_files_with_one_shard_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    path = _corpus(tmp_path, "web/*", ["web/a.parquet", "web/a"])
    with pytest.raises(ValueError, match=r"domains\.web\.files.*'a'") as caught:
        Corpus(load_corpus_config(path)).shards()
    assert f"{tmp_path}/web/a and {tmp_path}/web/a.parquet" in str(caught.value)


def _opened(tmp_path: Path, glob: str, files: list[str], *, format: str = "parquet") -> Corpus:
    return Corpus(load_corpus_config(_corpus(tmp_path, glob, files, format=format)))


def test_a_shard_is_found_by_its_key(tmp_path: Path) -> None:
    corpus = _opened(tmp_path, "web/**/*.parquet", ["web/a.parquet", "web/2024/B b.parquet"])
    for landed in corpus.landed_shards():
        assert corpus.find(landed.shard.key) == landed


def test_a_shard_whose_file_is_gone_is_named_with_its_neighbours(tmp_path: Path) -> None:
    corpus = _opened(tmp_path, "web/*.parquet", ["web/part-001.parquet", "web/part-003.parquet"])
    with pytest.raises(ValueError, match=r"'web\.part-002'.*web/\*\.parquet.*retire_shards.*near it: web\.part-00"):
        corpus.find("web.part-002")


@pytest.mark.parametrize("key", ["weeb.a", "web", "", ".", "a.b.c", "web.", "web.a.b", "web./a", "web.../web/a"])
def test_a_key_of_no_domain_or_no_shard_is_refused(tmp_path: Path, key: str) -> None:
    corpus = _opened(tmp_path, "web/*.parquet", ["web/a.parquet"])
    with pytest.raises(ValueError, match=re.escape(repr(key))):
        corpus.find(key)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were listed, in turn."""
    listed: list[str] = []

    def noted(root: str, pattern: str, *, storage_options: StorageOptions) -> list[FoundFile]:
        listed.append(root)
        return found_files(root, pattern, storage_options=storage_options)

    monkeypatch.setattr(discovery, "found_files", noted)
    return listed


NESTED = [f"web/CC-MAIN-2024-{week}/000_{number:05}.parquet" for week in (10, 18) for number in range(4)]


def test_shards_with_their_files_own_names_are_found_without_a_listing(tmp_path: Path, listings: list[str]) -> None:
    names = ["part-001", "web-20240101", "plain"]  # one looks as if it ended in a hash
    corpus = _opened(tmp_path, "web/*.parquet", [f"web/{name}.parquet" for name in names])
    assert [corpus.find(f"web.{name}").shard.uri for name in names] == [f"{tmp_path}/web/{n}.parquet" for n in names]
    assert listings == []


def test_nested_shards_that_are_not_indexed_yet_cost_a_run_one_listing(tmp_path: Path, listings: list[str]) -> None:
    path = _corpus(tmp_path, "web/CC-MAIN-*/*.parquet", NESTED)
    landed = Corpus(load_corpus_config(path)).landed_shards()
    listings.clear()
    run = Corpus(load_corpus_config(path))
    assert [run.find(file.shard.key) for file in landed] == landed
    assert listings == [f"{tmp_path}/web"]


def test_nested_shards_that_are_indexed_are_found_without_a_listing(tmp_path: Path, listings: list[str]) -> None:
    path = _corpus(tmp_path, "web/CC-MAIN-*/*.parquet", NESTED)
    landed = Corpus(load_corpus_config(path)).landed_shards()
    listings.clear()
    indexed = {file.shard.key: file.shard.uri for file in landed}
    run = Corpus(load_corpus_config(path))
    assert [run.find(file.shard.key, indexed_from=indexed.get) for file in landed] == landed
    assert listings == []


def test_a_file_that_lands_after_the_listing_is_found_and_one_that_goes_is_gone(tmp_path: Path) -> None:
    corpus = _opened(tmp_path, "web/CC-MAIN-*/*.parquet", NESTED[:2])
    first, second = corpus.landed_shards()
    late = tmp_path / NESTED[2]
    late.touch()
    (late_key,) = {s.key for s in Corpus(corpus.config).shards()} - {first.shard.key, second.shard.key}
    assert corpus.find(late_key).shard.uri == str(late)
    Path(second.shard.uri).unlink()
    with pytest.raises(ValueError, match=f"{second.shard.key}.*was its file moved or deleted"):
        corpus.find(second.shard.key)
    assert corpus.find(first.shard.key) == first


def test_a_file_is_found_as_it_is_now_not_as_it_was_listed(tmp_path: Path) -> None:
    corpus = _opened(tmp_path, "web/CC-MAIN-*/*.parquet", NESTED[:1])
    (listed,) = corpus.landed_shards()
    Path(listed.shard.uri).write_bytes(b"more")
    assert corpus.find(listed.shard.key).n_bytes == 4
    assert corpus.find(listed.shard.key) == corpus.landed_shards()[0]


@pytest.mark.parametrize(
    "elsewhere",
    ["{0}/other/CC-MAIN-2024-10/000_00000.parquet", "s3://bucket/x.parquet", "", "/", "{0}/web/", "{0}/web"],
)
def test_a_shard_that_was_indexed_elsewhere_is_found_where_it_is_now(tmp_path: Path, elsewhere: str) -> None:
    corpus = _opened(tmp_path, "web/CC-MAIN-*/*.parquet", NESTED)
    (tmp_path / "other/CC-MAIN-2024-10").mkdir(parents=True)
    (tmp_path / "other/CC-MAIN-2024-10/000_00000.parquet").touch()
    landed = corpus.landed_shards()[0]
    found = Corpus(corpus.config).find(landed.shard.key, indexed_from=lambda key: elsewhere.format(tmp_path))
    assert found == landed


@pytest.mark.parametrize("key", ["web.a", "web.b-20240101"])
def test_two_files_with_one_plain_name_are_an_error_without_a_listing_too(tmp_path: Path, key: str) -> None:
    name = key.removeprefix("web.")
    corpus = _opened(tmp_path, "web/*", [f"web/{name}.parquet", f"web/{name}", "web/other.parquet"])
    for known in ({}, {key: f"{tmp_path}/web/{name}"}, {key: f"{tmp_path}/web/{name}.parquet"}):
        with pytest.raises(ValueError, match=rf"{name} and .*/{name}\.parquet; rename one"):
            corpus.find(key, indexed_from=known.get)
    (tmp_path / "web/late-20240101").touch()
    corpus = _opened(tmp_path, "web/late*", [])
    assert corpus.shards()
    (tmp_path / "web/late-20240101.parquet").touch()
    with pytest.raises(ValueError, match="rename one"):
        corpus.find("web.late-20240101")
    corpus = _opened(tmp_path, "web/*", [])
    assert corpus.find("web.other").shard.name == "other"  # the fault of another shard is not noticed
    with pytest.raises(ValueError, match="rename one"):
        corpus.shards()


_names = st.one_of(
    st.text("aB. -", min_size=1, max_size=3), st.sampled_from(["x-20240101", "a.jsonl", "a", "B b.jsonl"])
)
_paths = st.lists(_names.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=3).map("/".join)
_globs = st.lists(
    st.sampled_from(["*", "**", "a*", "?", "[aB]", "*.jsonl", "a", "a.jsonl", "B b.jsonl", "x-*"]),
    min_size=1,
    max_size=3,
).map("/".join)
SLUG = shard_name("B b.jsonl", format="jsonl")


@settings(deadline=None, max_examples=300)
@given(paths=st.lists(_paths, max_size=8), glob=_globs, claims=st.lists(_paths, min_size=1, max_size=3))
@example(paths=["a", "a.jsonl"], glob="*", claims=["a"])
@example(paths=["a", "a.jsonl", "b/a"], glob="**/*", claims=["b/a"])
@example(paths=["B b.jsonl", f"{SLUG}.jsonl"], glob="*", claims=[f"{SLUG}.jsonl"])
@example(paths=["B b.jsonl", "a"], glob="**", claims=["B b.jsonl"])
@example(paths=["a.jsonl"], glob="a.jsonl/a/*", claims=["B"])
def test_whatever_lies_there_a_shard_is_found_as_a_listing_finds_it(
    paths: list[str], glob: str, claims: list[str]
) -> None:
    """With a listing's words for an oracle. `claims`: files that shards are said to have been indexed from."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "web")
        root.mkdir()
        for path in paths:
            file = root / path
            if not any(parent.is_file() for parent in file.parents) and not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        Path(folder, "corpus.yaml").write_text(f"domains:\n  web: {{files: 'web/{glob}', format: jsonl}}\n")
        config = load_corpus_config(Path(folder, "corpus.yaml"))
        by_name: dict[str, list[str]] = {}
        (source,) = config.domains["web"].files
        through_a_file = any(place.is_file() for place in (Path(source.root), *Path(source.root).parents))
        # no folder can be below a file: a listing is an error then, and no shard is there
        for listed in [] if through_a_file else found_files(source.root, source.patterns[0]):
            by_name.setdefault(shard_name(listed.path, format="jsonl"), []).append(f"{source.root}/{listed.path}")
        doubled = [name for name, files in by_name.items() if len(files) > 1]
        said = {f"web.{shard_name(path, format='jsonl')}": f"{root}/{path}" for path in claims}
        for name in [*by_name, *(shard_name(path, format="jsonl") for path in [*paths, *claims]), "nothing-20240101"]:
            for indexed_from in (None, said.get, {f"web.{name}": f"{root}/{claims[0]}"}.get):
                found = _found(Corpus(config), f"web.{name}", indexed_from)
                if name not in by_name:
                    assert found is None
                elif name not in doubled:
                    if found is None:
                        assert doubled, "an error only where the listing it came to is one"
                    else:
                        assert [found] == by_name[name]
                else:
                    assert found is None or (name == SLUG and found in by_name[name])


def _found(corpus: Corpus, key: str, indexed_from: Callable[[str], str | None] | None) -> str | None:
    try:
        landed = corpus.find(key, indexed_from=indexed_from)
    except (ValueError, NotADirectoryError):
        return None
    return landed.shard.uri


def test_on_s3_a_shard_is_found_as_a_listing_finds_it(s3_options: dict[str, str], listings: list[str]) -> None:
    root = f"s3://lake/{uuid.uuid4().hex}"
    for path in ["plain.parquet", "CC-MAIN-2024-10/000_00000.parquet"]:
        filesystem, inner = filesystem_for(f"{root}/{path}", s3_options)
        with filesystem.open_output_stream(inner) as stream:
            stream.write(b"12345")
    glob = Glob(f"{root}/**/*.parquet", root, ("**/*.parquet",))
    config = CorpusConfig("corpus.yaml", {"web": DomainSource(files=(glob,), format="parquet")})
    landed = Corpus(config, storage_options=s3_options).landed_shards()
    assert len(landed) == 2
    listings.clear()
    indexed = {file.shard.key: file.shard.uri for file in landed}
    run = Corpus(config, storage_options=s3_options)
    assert [run.find(file.shard.key, indexed_from=indexed.get) for file in landed] == landed
    assert listings == []
    with pytest.raises(ValueError, match="was its file moved or deleted"):
        run.find("web.CC")
