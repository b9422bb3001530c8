"""Filesystems by URI, and globs over them, against Python's own glob."""

import glob
import os
import re
import tempfile
import uuid
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attninf_assets.store.filesystems import filesystem_for, found_files, split_glob, standing_files
from attninf_assets.store.root import Root
from attninf_assets_tests.support.faulty_proxy import faulty_proxy

_names = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})
_paths = st.lists(_names, min_size=1, max_size=4).map("/".join)
_pattern_parts = st.one_of(_names, st.sampled_from(["*", "**", "a*", "*b", "?", "[ab]", "[!a]*", "*.b", ".*"]))
_patterns = st.lists(_pattern_parts, min_size=1, max_size=4).map("/".join)


def _files_below(root: str) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(folder, name), root) for folder, _, names in os.walk(root) for name in names
    )


def _matched(root: str, pattern: str, options: dict[str, str] | None = None) -> list[str]:
    return [file.path for file in found_files(root, pattern, storage_options=options or {})]


@given(paths=st.lists(_paths, max_size=12), pattern=_patterns)
@example(paths=["a"], pattern="a/**")
@example(paths=["a", "b/c/d"], pattern="**/**")
def test_a_glob_matches_the_files_that_pythons_own_glob_matches(paths: list[str], pattern: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        for path in paths:
            file = Path(root, path)
            if not any(parent.is_file() for parent in file.parents) and not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        # Some Pythons' globs turn a file `a` into a folder `a/`, which is none.
        found = {path for path in glob.glob(pattern, root_dir=root, recursive=True) if os.path.isfile(f"{root}/{path}")}
        assert _matched(root, pattern) == sorted(found)


@given(prefix=st.lists(_names, max_size=3).map("/".join), rest=_patterns, absolute=st.booleans())
def test_a_glob_is_its_fixed_prefix_and_the_rest(prefix: str, rest: str, absolute: bool) -> None:
    pattern = ("/" if absolute else "") + (f"{prefix}/" if prefix else "") + rest
    root, tail = split_glob(pattern)
    assert (f"{root.rstrip('/')}/{tail}" if root else tail) == pattern
    assert tail
    assert not set(root) & set("*?[")
    assert "/" not in tail or set(tail.split("/")[0]) & set("*?[")


def test_a_folder_that_does_not_exist_holds_no_files(tmp_path: Path) -> None:
    assert _matched(str(tmp_path / "nowhere"), "**/*") == []


def test_a_folder_whose_name_holds_wildcards_is_taken_literally(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]*"
    folder.mkdir()
    (folder / "x.parquet").touch()
    assert _matched(str(folder), "*.parquet") == ["x.parquet"]


def test_a_wildcard_does_not_match_a_leading_dot(tmp_path: Path) -> None:
    for path in [".unfinished.parquet", ".git/a.parquet", "b/.c/a.parquet", "b/a.parquet"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert _matched(str(tmp_path), "*.parquet") == []
    assert _matched(str(tmp_path), "*/*.parquet") == ["b/a.parquet"]
    assert _matched(str(tmp_path), "**/*.parquet") == ["b/a.parquet"]
    assert _matched(str(tmp_path), ".*/*.parquet") == [".git/a.parquet"]


def test_sizes_are_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert [(file.path, file.n_bytes) for file in found_files(str(tmp_path), "*")] == [("x", 5)]


def test_s3_is_listed_and_read_like_a_local_folder(s3_options: dict[str, str], tmp_path: Path) -> None:
    root = f"s3://lake/{uuid.uuid4().hex}"
    paths = ["a.txt", "b/a.txt", "b/c/a.txt", "b/c/.hidden.txt", "b/c/other.bin", "b c/ü+%20.txt"]
    for path in paths:
        filesystem, inner = filesystem_for(f"{root}/{path}", s3_options)
        with filesystem.open_output_stream(inner) as stream:
            stream.write(path.encode())
        local = tmp_path / path
        local.parent.mkdir(parents=True, exist_ok=True)
        local.touch()
    assert _files_below(str(tmp_path)) == sorted(paths)
    for pattern in ["*.txt", "**/*.txt", "*/*.txt", "b/**/*", "b c/*", "nothing/*"]:
        assert _matched(root, pattern, s3_options) == _matched(str(tmp_path), pattern)
    filesystem, inner = filesystem_for(f"{root}/b c/ü+%20.txt", s3_options)
    assert filesystem.open_input_stream(inner).read() == "b c/ü+%20.txt".encode()


def test_a_file_on_s3_is_the_same_listed_and_looked_up_where_listings_say_milliseconds(
    s3_options: dict[str, str],
) -> None:
    """As MinIO's do; its answers for a single object, like everybody's, say seconds."""
    root = f"s3://lake/{uuid.uuid4().hex}"
    filesystem, inner = filesystem_for(f"{root}/a/b.txt", s3_options)
    with filesystem.open_output_stream(inner) as stream:
        stream.write(b"12345")
    with faulty_proxy(s3_options) as proxy:
        proxy.rewritten = lambda body: re.sub(rb"(:\d\d)(\.\d+)?Z</LastModified>", rb"\1.789Z</LastModified>", body)
        (raw,) = filesystem_for(root, proxy.options)[0].get_file_info(pafs.FileSelector(f"{inner.rpartition('/')[0]}"))
        assert raw.mtime_ns % 1_000_000_000 == 789_000_000
        listed = found_files(root, "*/*.txt", storage_options=proxy.options)
        assert [file.path for file in listed] == ["a/b.txt"]
        assert standing_files(root, ["a/b.txt", "a", "a/none"], storage_options=proxy.options) == listed


def test_loops_of_links_end_and_every_file_is_found_once_by_its_own_path(tmp_path: Path) -> None:
    for path in ["a/x.txt", "b/c/x.txt", "b/y.txt"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for link, target in [("a/up", ".."), ("a/self", "self"), ("b/c/b", "../../b"), ("0", "b"), ("loop", ".")]:
        (tmp_path / link).symlink_to(target)
    assert _matched(str(tmp_path), "**/*.txt") == ["a/x.txt", "b/c/x.txt", "b/y.txt"]
    assert _matched(str(tmp_path), "0*/**") == ["0/c/x.txt", "0/y.txt"]
    assert _matched(str(tmp_path), "a/up/a/up/b/*") == ["a/up/a/up/b/y.txt"]


def test_folders_linked_to_each_other_in_every_way_are_listed_in_no_time(tmp_path: Path) -> None:
    """By every path that enters no folder twice these would be more than 10 to the 13th."""
    folders = [tmp_path / str(n) for n in range(15)]
    for folder in folders:
        folder.mkdir()
        (folder / "x.txt").touch()
        for other in folders:
            (folder / f"to_{other.name}").symlink_to(other)
    assert _matched(str(tmp_path), "**/*.txt") == sorted(f"{folder.name}/x.txt" for folder in folders)


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep/x.txt").write_text("12345")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    assert [(file.path, file.n_bytes) for file in found_files(str(tmp_path / "root"), "**/*.txt")] == [
        ("link/deep/x.txt", 5)
    ]
    assert _matched(str(tmp_path / "root/link"), "*/*.txt") == ["deep/x.txt"]


def test_a_name_that_is_not_utf8_is_refused_by_name_where_it_matches(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.txt")).touch()
    (tmp_path / "b.bin").touch()
    assert _matched(str(tmp_path), "*.bin") == ["b.bin"]
    with pytest.raises(ValueError, match=r"the file name b'a\\xff\.txt' is not valid UTF-8"):
        _matched(str(tmp_path), "*")


def test_a_folder_that_cannot_match_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.txt").touch()
    (tmp_path / "b").symlink_to("/proc")
    assert _matched(str(tmp_path), "a*/**/*.txt") == ["a/x.txt"]


def test_files_are_looked_up_as_a_listing_shows_them(tmp_path: Path) -> None:
    for path in ["a.txt", "b/a.txt", "b/.hidden"]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "link").symlink_to("a.txt")
    (tmp_path / "broken").symlink_to("nowhere")
    listed = found_files(str(tmp_path), "**/*")
    assert [file.path for file in listed] == ["a.txt", "b/a.txt", "link"]
    paths = ["a.txt", "b/a.txt", "link", "broken", "b", "c", "a.txt/x"]
    assert standing_files(str(tmp_path), paths) == listed


def test_a_wrong_s3_secret_is_refused_rather_than_listing_nothing(s3_options: dict[str, str]) -> None:
    with pytest.raises(OSError, match="AWS Error"):
        _matched("s3://lake/anything", "*", s3_options | {"AWS_SECRET_ACCESS_KEY": "wrong"})


def test_a_plain_http_endpoint_needs_permission() -> None:
    with pytest.raises(ValueError, match=r"AWS_ENDPOINT_URL: 'http://127.0.0.1:1' .* AWS_ALLOW_HTTP=true"):
        filesystem_for("s3://bucket/key", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})


def test_an_endpoint_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match=r"AWS_ENDPOINT_URL: '127\.0\.0\.1:9000' is not"):
        filesystem_for("s3://bucket/key", {"AWS_ENDPOINT_URL": "127.0.0.1:9000"})


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gs://bucket/key: scheme 'gs' is not supported"):
        filesystem_for("gs://bucket/key", {})


def test_a_local_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filesystem, path = filesystem_for("some/file", {})
    assert isinstance(filesystem, pafs.LocalFileSystem)
    assert path == str(tmp_path / "some/file")


def test_the_hub_is_reached_through_its_own_filesystem() -> None:
    filesystem, path = filesystem_for("hf://datasets/org/name/data/x.parquet", {})
    assert filesystem.type_name == "py::fsspec+hf"
    assert path == "datasets/org/name/data/x.parquet"


def test_without_options_the_endpoint_of_the_environment_is_used(
    s3_root: Root, s3_options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_root.write_bytes("x", b"here")
    for name, value in s3_options.items():
        if name != "AWS_ALLOW_HTTP":
            monkeypatch.setenv(name, value)
    filesystem, path = filesystem_for(f"{s3_root.uri}/x")
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"here"
