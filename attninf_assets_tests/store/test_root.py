"""Root: where everything is stored."""

import multiprocessing as mp
import os
import pickle
from pathlib import Path

import boto3
import pyarrow.fs as pafs
import pytest

from attninf_assets.store import root as root_module
from attninf_assets.store.root import Root
from attninf_assets_tests.support.faulty_proxy import faulty_proxy
from attninf_assets_tests.support.processes import FORKED


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("/data/lake/", "/data/lake"),
        ("/data/./a/../lake", "/data/lake"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a//b/", "s3://bucket/a/b"),
    ],
)
def test_a_location_is_normalized(given: str, uri: str) -> None:
    assert Root.at(given).uri == uri


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Root.at("data").uri == str(tmp_path / "data")


@pytest.mark.parametrize(
    "location",
    [
        "gs://bucket/x",
        "",
        "s3://",
        "s3:///prefix",
        "s3://a/../b",
        "hf://datasets/x",
        "file:///x",
        "/a[b]",
        "/a%20b",
        "/a*",
        "s3://b/a b",
    ],
)
def test_a_location_we_cannot_serve_is_refused_by_name(location: str) -> None:
    with pytest.raises(ValueError, match="storage root") as refusal:
        Root.at(location)
    assert repr(location) in str(refusal.value)


def test_secrets_do_not_show_in_the_repr_and_survive_pickling() -> None:
    root = Root.at("s3://bucket/x", {"AWS_SECRET_ACCESS_KEY": "hush"})
    assert "hush" not in f"{root!r} {root}"
    assert pickle.loads(pickle.dumps(root)) == root
    assert hash(root) == hash(Root.at("s3://bucket/x"))


def test_what_is_written_is_read_listed_moved_and_deleted(root: Root) -> None:
    assert root.list("a") == []
    assert not root.exists("a/b/one")
    root.write_bytes("a/b/one", b"1")
    root.write_bytes("a/two", b"2")
    root.write_bytes("a/two", b"3")
    assert root.list("a") == ["a/b/one", "a/two"]
    assert root.read_bytes("a/two") == b"3"
    root.move("a/two", "a/b/one")
    assert root.list("a") == ["a/b/one"]
    assert root.read_bytes("a/b/one") == b"3"
    assert root.exists("a/b/one")
    root.delete("a/b/one")
    root.delete("a/b/one")
    assert not root.exists("a/b/one")
    root.write_bytes("a/c/d", b"4")
    root.delete("a")
    assert root.list("a") == []


def test_a_directory_entry_that_a_server_keeps_of_deleted_objects_is_nothing(
    s3_root: Root, s3_options: dict[str, str]
) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=s3_options["AWS_ENDPOINT_URL"],
        aws_access_key_id=s3_options["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3_options["AWS_SECRET_ACCESS_KEY"],
        region_name=s3_options["AWS_REGION"],
    )
    bucket, prefix = s3_root.uri.removeprefix("s3://").split("/", 1)
    s3_root.write_bytes("staging/emptied/deep/file", b"1")
    client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"{prefix}/staging/emptied/deep/file"}]})
    client.put_object(Bucket=bucket, Key=f"{prefix}/staging/marked/", Body=b"")
    filesystem, _ = s3_root.filesystem()
    for name in ("emptied", "emptied/deep", "marked"):
        kind = filesystem.get_file_info(f"{bucket}/{prefix}/staging/{name}").type
        assert kind == pafs.FileType.Directory, "the server keeps no such entries: this test shows nothing"
    for name in ("emptied/deep", "emptied", "marked"):
        assert s3_root.list(f"staging/{name}") == []
        assert not s3_root.exists(f"staging/{name}")
        s3_root.delete(f"staging/{name}")
        s3_root.write_bytes(f"staging/{name}/file", b"1")
        s3_root.delete(f"staging/{name}")
        assert not s3_root.exists(f"staging/{name}")


@pytest.mark.parametrize("rel", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "."])
def test_a_path_outside_the_root_is_refused(tmp_path: Path, rel: str) -> None:
    with pytest.raises(ValueError, match="relative path inside the root"):
        Root.at(tmp_path).delete(rel)


def _write_many(root: Root, n: int, clearing: bool, together: "mp.synchronize.Barrier") -> None:
    together.wait(60)
    for number in range(n):
        root.write_bytes(f"a/b/{number}", b"1")
        if clearing and number % 3 == 0:
            root.delete("a")


def test_processes_that_write_below_a_directory_and_delete_it_do_not_disturb_each_other(root: Root) -> None:
    together, n = FORKED.Barrier(4), 400 if root.is_local else 30
    processes = [FORKED.Process(target=_write_many, args=(root, n, side % 2 == 0, together)) for side in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    root.delete("a")
    assert root.list("a") == []


def test_a_file_deleted_between_opening_and_reading_it_is_a_missing_file(s3_root: Root) -> None:
    s3_root.write_bytes("x", b"x")
    with faulty_proxy(s3_root.storage_options) as proxy:

        def delete_before_reading(method: str, path: str, number: int) -> None:
            if method == "GET" and path.endswith("/x"):
                s3_root.delete("x")

        proxy.fault = delete_before_reading
        with pytest.raises(FileNotFoundError, match=f"{s3_root.uri}/x"):
            Root.at(s3_root.uri, proxy.options).read_bytes("x")


def test_a_reader_of_the_old_content_is_not_disturbed_by_a_write(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    root.write_bytes("x", b"old")
    with (tmp_path / "x").open("rb") as reader:
        root.write_bytes("x", b"new")
        assert reader.read() == b"old"
    assert root.read_bytes("x") == b"new"


def test_an_interrupted_write_leaves_the_old_content_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root.at(tmp_path)
    root.write_bytes("x", b"old")

    def full_disk(_: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(root_module.os, "fsync", full_disk)
        with pytest.raises(OSError, match="disk full"):
            root.write_bytes("x", b"new")
    assert root.read_bytes("x") == b"old"
    assert os.listdir(tmp_path) == ["x"]
