"""The corpus file: refused whole with every problem named, or turned into shards whose names stand on their own."""

import re
from pathlib import Path

import pytest

from attninf_assets.corpus.config import DomainSource, Glob, load_corpus_config
from attninf_assets.corpus.discovery import Corpus

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


def _complaint(tmp_path: Path, text: str) -> str:
    path = _write(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_corpus_config(path)
    return str(caught.value)


def test_a_valid_file_becomes_sources_with_defaults_filled_in(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        """
domains:
  web: {files: web/*.parquet, format: parquet}
  code:
    files: s3://bucket/code/**/*.jsonl.zst
    format: jsonl.zst
    text_column: content
    id_column: blob_id
""",
    )
    config = load_corpus_config(path)
    assert config.path == str(path)
    assert config.domains == {
        "web": DomainSource(files=(Glob("web/*.parquet", f"{tmp_path}/web", ("*.parquet",)),), format="parquet"),
        "code": DomainSource(
            files=(Glob("s3://bucket/code/**/*.jsonl.zst", "s3://bucket/code", ("**/*.jsonl.zst",)),),
            format="jsonl.zst",
            text_column="content",
            id_column="blob_id",
        ),
    }
    assert (config.domains["web"].text_column, config.domains["web"].id_column) == ("text", None)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (
            "{files: 'a/*', format: csv}",
            "domains.web.format: 'csv': not a format; known are parquet, jsonl, jsonl.zst, jsonl.gz",
        ),
        ("{files: 'a/*', format: parqet}", "domains.web.format: 'parqet': not a format; did you mean parquet?"),
        ("{files: 'a/*', format: null}", "domains.web.format: empty: not a format; known are parquet"),
        ("{format: parquet}", "domains.web.files: missing"),
        ("{files: 'a/*'}", "domains.web.format: missing"),
        ("{files: {a: b}, format: parquet}", "domains.web.files: {'a': 'b'}: not a glob"),
        ("{files: [], format: parquet}", "domains.web.files: []: no glob in it"),
        ("{files: [a, 7], format: parquet}", "domains.web.files: ['a', 7]: 7: not a glob"),
        ("{files: [a, b/], format: parquet}", "domains.web.files: ['a', 'b/']: 'b/': is a folder; name its files"),
        ("{files: [a, [b]], format: parquet}", "domains.web.files: ['a', ['b']]: ['b']: not a glob"),
        ("{files: 'a/{a,b}{c,d}*{1,2,3,4,5,6,7,8,9,0}{1,2,3,4,5,6,7,8,9,0}{1,2,3,4}', format: parquet}", "1,000 globs"),
        ("{files: 's3://{a,b}/x', format: parquet}", "needs its bucket in full"),
        (
            "{files: ['a/*.parquet', 'a/*.jsonl.gz'], format: parquet}",
            "domains.web.format: 'parquet': '*.jsonl.gz' names jsonl.gz files; a domain has one format: make another",
        ),
        ("{files: 'a/*.jsonl.gz', format: jsonl}", "'*.jsonl.gz' names jsonl.gz files; a domain has one format"),
        ("{files: a, format: parquet, may_be_empty: 1}", "domains.web.may_be_empty: 1: neither true nor false"),
        ("{files: '', format: parquet}", "domains.web.files: '': not a glob"),
        ("{files: a, format: 3}", "domains.web.format: 3: not a format; known are parquet, jsonl"),
        ("{files: a, format: parquet, text_column: 7}", "domains.web.text_column: 7: not a string; put it in quotes"),
        ("{files: a, format: parquet, text_column: ' '}", "domains.web.text_column: ' ': not a column's name"),
        ("{files: a, format: parquet, id_column: null}", "domains.web.id_column: empty: not a column's name"),
        ("{files: a, format: parquet, id_column: text}", "domains.web.id_column: 'text': is the text column"),
        (
            "{files: a, format: parquet, text_column: t, id_column: t}",
            "domains.web.id_column: 't': is the text column",
        ),
        (
            "{files: a, format: parquet, glob: x}",
            "domains.web.glob: unknown key; known are files, format, text_column, id_column, may_be_empty",
        ),
        (
            "{files: a, format: parquet, text_colum: x}",
            "domains.web.text_colum: unknown key; did you mean text_column?",
        ),
        ("{files: a, format: parquet, 3: x}", "domains.web.3: 3: Keys should be strings"),
        ("{files: 'gs://b/x', format: parquet}", "domains.web.files: 'gs://b/x': has the scheme 'gs'"),
        ("{files: 's3://*/x', format: parquet}", "domains.web.files: 's3://*/x': needs its bucket in full"),
        (
            "{files: 'hf://datasets/*/x', format: parquet}",
            "domains.web.files: 'hf://datasets/*/x': needs its repository",
        ),
        ("{files: 'folder/', format: parquet}", "domains.web.files: 'folder/': is a folder"),
        ("web/*.parquet", "domains.web: 'web/*.parquet': not a mapping"),
        (
            f"{{files: {'x' * 256}/*, format: parquet}}",
            "(258 characters): has a part that is longer than any name"[-40:],
        ),
        (f"{{files: {'x/' * 2100}*, format: parquet}}", "is longer than any path, 4,095 bytes"),
        (
            r'{files: "a\0b/*", format: parquet}',
            r"domains.web.files: 'a\x00b/*': holds a character that no path may hold",
        ),
        (f"{{files: '{'x' * 400}://b', format: parquet}}", "… (402 characters); give a local path"),
        (r'{files: "s3\uFEFF://k:s@b/*", format: parquet}', r"an address s3\ufeff://… with credentials"),
    ],
)
def test_a_bad_entry_is_refused_with_field_and_value(tmp_path: Path, entry: str, complaint: str) -> None:
    assert complaint in _complaint(tmp_path, f"domains:\n  web: {entry}\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the file: empty: not a mapping"),
        ("- a\n", "the file: ['a']: not a mapping"),
        ("{}", "domains: missing"),
        ("domains: {}", "domains: {}: no domain in it"),
        ("domains: null", "domains: empty: not a mapping"),
        ("domains: [web]", "domains: ['web']: not a mapping"),
        (f"domains: {{web: {_GOOD}}}\nversion: 2", "version: unknown key; known are domains"),
        (f"domain: {{web: {_GOOD}}}", "domain: unknown key; did you mean domains?"),
        (f"domains: {{web: {_GOOD}}}\npath: elsewhere", "path: unknown key"),
        (f"domains: {{Web: {_GOOD}}}", "domains.Web: 'Web': not a domain's name; it is made of a-z, 0-9, _ and -"),
        (f"domains: {{'we b': {_GOOD}}}", "domains.we b: 'we b': not a domain's name"),
        (f"domains: {{'': {_GOOD}}}", "domains.: '': not a domain's name"),
        (f"domains: {{we.b: {_GOOD}}}", "'we.b': not a domain's name"),
        (f'domains: {{"web\\n": {_GOOD}}}', r"'web\n': not a domain's name"),
        (f"domains: {{on: {_GOOD}}}", ": True: not a string; put it in quotes"),
        (f"domains: {{'{'x' * 201}': {_GOOD}}}", "at most 200 characters"),
        ("domains: [", "is not valid YAML"),
        ("domains: {}\n---\ndomains: {}", "is not valid YAML"),
        ("domains: \x01", "is not valid YAML"),
        ("domains: {? [a] : b}", "is not valid YAML"),
        ("domains: !!python/object:os.system {}", "is not valid YAML"),
        ("a: 1\nb: !!timestamp x", "is not valid YAML: line 2: 'x': not a valid timestamp"),
        ('a: 1\nb: "\\U00110000"', "is not valid YAML: line 2: chr() arg not in range(0x110000)"),
        (f"a: 1\nb: !{'x' * 5000} y", "is not valid YAML: line 2: could not determine a constructor for the tag '!xxx"),
        ("a: !!bool x", "is not valid YAML: line 1: 'x': not a valid bool"),
        ("a: !!int ''", "is not valid YAML: line 1: '': not a valid int"),
        ("a: 0000-00-00", "is not valid YAML: line 1: '0000-00-00': not a valid timestamp"),
        (f"a: {'9' * 5000}", "is not valid YAML: line 1: '999"),
        (f'domains: {{"\\e[2J": {_GOOD}}}', r"domains.\x1b[2J: '\x1b[2J': not a domain's name"),
        (f'domains: {{"a\\nb": {_GOOD}}}', r"domains.a\nb: 'a\nb': not a domain's name"),
    ],
)
def test_a_bad_file_is_refused_with_field_and_value(tmp_path: Path, text: str, complaint: str) -> None:
    assert complaint in _complaint(tmp_path, text)


@pytest.mark.parametrize(
    ("glob", "root", "patterns"),
    [
        ("web/{a,b}/*.jsonl", "/web", ("a/*.jsonl", "b/*.jsonl")),
        ("{web,code}/x", "", ("web/x", "code/x")),
        ("web/*.{x,{y,z}}", "/web", ("*.x", "*.y", "*.z")),
        ("web/part-{1,2}{a,b}", "/web", ("part-1a", "part-1b", "part-2a", "part-2b")),
        ("web/{a}/x{", "/web/{a}", ("x{",)),
        ("web/{a/x,b}/*", "/web", ("a/x/*", "b/*")),
    ],
)
def test_braces_are_spelled_out_below_the_folder_before_them(
    tmp_path: Path, glob: str, root: str, patterns: tuple[str, ...]
) -> None:
    path = _write(tmp_path, f"domains:\n  web: {{files: '{glob}', format: jsonl}}\n")
    (found,) = load_corpus_config(path).domains["web"].files
    assert found == Glob(glob, f"{tmp_path}{root}", patterns)


_LAUGHS = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"l0: &l0 [ha]\n{_LAUGHS}\ndomains: *l9", "line 2: an alias within what an anchor names"),
        ("domains: &a {web: *a}", "line 1: an alias within what an anchor names"),
        (f"a: &a [ha]\ndomains: [{', '.join(['*a'] * 101)}]", "line 2: more than 100 aliases"),
        ("domains: " + "[" * 21 + "]" * 21, "line 1: nested more than 20 deep"),
        ("domains: " + "[" * 300_000, "line 1: nested more than 20 deep"),
        ("#" * (2 << 20), "larger than 1,048,576 bytes"),
        (f"domains: {{web: [{', '.join(['x'] * 10_000)}]}}", "(50,000 characters): not a mapping"),
        (f"domains: {{web: 0x{'f' * 100_000}}}", "domains.web: a number of too many digits: not a mapping"),
        ("\n".join(["domains:", *(f"  D{n}: 1" for n in range(1_000))]), "and 1,950 more"),
        ("domains: {" + "a" * 1_000 + ": 1}", "(1,008 characters)"),
    ],
    ids=["laughs", "itself", "aliases", "deep", "deeper", "large", "long", "number", "many", "name"],
)
def test_a_file_made_to_grow_is_refused_at_once_and_in_few_words(tmp_path: Path, text: str, complaint: str) -> None:
    found = _complaint(tmp_path, text)
    assert complaint in found
    assert len(found) < 20_000


def test_what_domains_have_in_common_may_be_written_once(tmp_path: Path) -> None:
    text = "domains:\n  a: &a {files: 'x/*', format: parquet}\n  b: {<<: *a, id_column: id}\n  c: *a\n"
    domains = load_corpus_config(_write(tmp_path, text)).domains
    assert domains["c"] == domains["a"]
    assert (domains["b"].files, domains["b"].id_column) == (domains["a"].files, "id")


@pytest.mark.parametrize(
    "text",
    [
        "domains: {web: {files: 's3://AKIA:5ecret/x@bucket/*.parquet', format: parquet}}",
        "domains: {web: {files: 'hf://me:5ecret@datasets/o/n/*', format: parquet}}",
        "domains: {web: {files: 's3://bucket/*.parquet?token=5ecret', format: parquet}}",
        "domains: ['s3://AKIA:5ecret/x@bucket/*.parquet']",
        "domains: 's3://AKIA:5ecret/x@bucket/*.parquet",
        "domains: {web: {files: [s3://AKIA:5ecret/x@bucket/*.parquet], format: parquet}}",
        "domains: {web: {files: 's\n3://bucket/x?token=5ecret'', format: parquet}}",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    assert "5ecret" not in _complaint(tmp_path, text)


def test_a_corpus_file_at_an_address_with_credentials_is_not_named() -> None:
    with pytest.raises(ValueError, match="credentials") as refusal:
        load_corpus_config("s3://AKIA:5ecret/x@bucket/corpus.yaml")
    assert "5ecret" not in str(refusal.value)


def test_a_domain_written_twice_is_refused_though_yaml_would_keep_the_last(tmp_path: Path) -> None:
    complaint = _complaint(tmp_path, f"domains:\n  web: {_GOOD}\n  web: {_GOOD}\n")
    assert "domains.web: written twice, in lines 2 and 3" in complaint


def test_a_field_written_twice_is_refused(tmp_path: Path) -> None:
    complaint = _complaint(tmp_path, "domains:\n  web:\n    files: a\n    format: jsonl\n    files: b\n")
    assert "domains.web.files: written twice, in lines 3 and 5" in complaint


def test_domains_written_twice_are_refused(tmp_path: Path) -> None:
    complaint = _complaint(tmp_path, f"domains: {{web: {_GOOD}}}\ndomains: {{code: {_GOOD}}}\n")
    assert "domains: written twice, in lines 1 and 2" in complaint


def test_all_problems_come_in_one_error(tmp_path: Path) -> None:
    complaint = _complaint(tmp_path, "domains:\n  web: {format: csv}\n  Code: {files: 3, format: jsonl}\nextra: 1\n")
    for field in ["extra", "domains.web.files", "domains.web.format", "domains.Code", "domains.Code.files"]:
        assert f"  {field}: " in complaint


def test_a_corpus_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml: the corpus file cannot be read"):
        load_corpus_config(tmp_path / "nowhere.yaml")


def test_a_corpus_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_bytes(b"domains: {\xff}")
    with pytest.raises(ValueError, match=r"corpus\.yaml: the corpus file cannot be read: .*utf-8"):
        load_corpus_config(path)


def test_a_folder_is_no_corpus_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the corpus file cannot be read"):
        load_corpus_config(tmp_path)


def test_globs_are_relative_to_the_corpus_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "with [brackets]*"
    folder.mkdir()
    path = _corpus(folder, "../with [[]brackets]*/web/*.parquet", ["web/a.parquet"])
    beside = _corpus(folder, "web/*.parquet", ["web/a.parquet"])
    monkeypatch.chdir(folder)
    for corpus_file in (beside, Path(beside.name)):
        assert [shard.uri for shard in Corpus(load_corpus_config(corpus_file)).shards()] == [f"{folder}/web/a.parquet"]
    assert path == beside


def test_a_corpus_file_on_s3_takes_relative_globs_from_beside_it(s3_options: dict[str, str]) -> None:
    from attninf_assets.store.filesystems import filesystem_for

    for name, content in {
        "config-test/corpus.yaml": f"domains:\n  web: {_GOOD}\n".encode(),
        "config-test/web/a.parquet": b"",
    }.items():
        filesystem, path = filesystem_for(f"s3://lake/{name}", s3_options)
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
    config = load_corpus_config("s3://lake/config-test/corpus.yaml", storage_options=s3_options)
    shards = Corpus(config, storage_options=s3_options).shards()
    assert [(shard.key, shard.uri) for shard in shards] == [("web.a", "s3://lake/config-test/web/a.parquet")]
