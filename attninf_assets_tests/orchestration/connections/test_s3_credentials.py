"""Credentials that are renewed while a run goes on: what is opened after that is opened with the new ones."""

import json
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attninf_assets.corpus import formats
from attninf_assets.corpus.documents import Document, Shard
from attninf_assets.corpus.readers import read_shard
from attninf_assets.influence.engine import Engine
from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.scores.update import update_partition_scores
from attninf_assets.store.query import connect
from attninf_assets.store.reopened_file import open_source
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.crashes import SELECTOR, indexed_shard, journalled_engine, rows_of
from attninf_assets_tests.support.faulty_proxy import FaultyProxy, faulty_proxy
from benchmarks.rigs.s3 import RENEWED
from benchmarks.rigs.tables_of_scores import scores_of


class Session:
    """Credentials that can be renewed; the old ones are refused from then on."""

    def __init__(self, proxy: FaultyProxy) -> None:
        self._proxy = proxy
        self._options = dict(proxy.options)
        self.n_asked = 0

    def __call__(self) -> Mapping[str, str]:
        self.n_asked += 1
        return dict(self._options)

    def renew(self) -> None:
        self._proxy.expired = {self._options["AWS_ACCESS_KEY_ID"]}
        self._options |= RENEWED


@pytest.fixture
def session(s3_options: dict[str, str]) -> Iterator[Session]:
    with faulty_proxy(s3_options) as proxy:
        yield Session(proxy)


def test_what_is_opened_after_a_renewal_is_opened_with_the_new_credentials(session: Session, s3_root: Root) -> None:
    root = Root.at(s3_root.uri, session)
    frozen = Root.at(s3_root.uri, session())
    lake = Lake(root)
    lake.replace("scores", scores_of("web", "a", 3))
    with connect(lake, "scores") as connection:
        assert connection.sql("SELECT count(*) FROM scores").fetchall() == [(3,)]
        session.renew()
        assert connection.sql("SELECT max(n_tokens) FROM scores").fetchall() == [(3,)]
        connection.execute("SET enable_external_file_cache = false")
        assert connection.sql("SELECT sum(n_tokens) FROM scores").fetchall() == [(6,)]
    assert len(lake.read("scores")) == 3
    lake.replace("scores", scores_of("web", "a", 4))
    root.write_bytes("x", b"x")
    assert root.read_bytes("x") == b"x"
    opened: list[Callable[[], object]] = [lambda: Lake(frozen).read("scores"), lambda: frozen.read_bytes("x")]
    for attempt in opened:  # so it is true that the old ones are refused
        with pytest.raises(OSError, match=r"ACCESS_DENIED|ExpiredToken|EXPIRED|privileges"):
            attempt()
    assert "secret" not in repr(root) + repr(lake.__dict__)


def test_a_scoring_run_outlives_the_credentials_it_began_with(
    session: Session, s3_root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_READ_BYTES", 256)
    root = Root.at(s3_root.uri, session)
    lake = Lake(root)
    local = indexed_shard(lake, tmp_path, "a", n_documents=60)
    root.write_bytes("source/a.jsonl", Path(local.uri).read_bytes())
    shard = replace(local, uri=f"{root.uri}/source/a.jsonl")
    n_chunks = 0

    def renew_after_two_chunks(_: object) -> None:
        nonlocal n_chunks
        n_chunks += 1
        if n_chunks == 2:
            session.renew()

    def engine() -> Engine:
        return replace(journalled_engine(tmp_path / "journal"), on_chunk=renew_after_two_chunks)

    result = update_partition_scores(lake, shard, SELECTOR, load=engine, storage_options=session, stage_every=0)
    assert n_chunks > 4
    assert result.n_scored == len(rows_of(lake, shard)) == 60
    assert set(rows_of(lake, shard)["selector_fingerprint"]) == {SELECTOR.fingerprint}
    assert lake.count("scoring_runs") == 1


@pytest.mark.parametrize("format_", ["parquet", "jsonl", "jsonl.gz"])
def test_a_source_goes_on_being_read_where_it_was(
    session: Session, s3_root: Root, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_READ_BYTES", 1_000)
    monkeypatch.setattr(formats, "_LINE_BYTES", 1_000)
    texts = [f"{number}: {number**40}" for number in range(500)]
    sink = pa.BufferOutputStream()
    if format_ == "parquet":
        pq.write_table(pa.table({"text": texts}), sink, row_group_size=50, compression="none")
    else:
        with pa.CompressedOutputStream(sink, "gzip") if format_ == "jsonl.gz" else sink as stream:
            stream.write("".join(json.dumps({"text": text}) + "\n" for text in texts).encode())
    s3_root.write_bytes("source", sink.getvalue().to_pybytes())
    shard = Shard("web", "a", f"{s3_root.uri}/source", format_, "text", None)
    read = []
    for document in read_shard(shard, storage_options=session):
        assert isinstance(document, Document)
        read.append(document.text)
        if len(read) == 200:
            session.renew()
    assert read == texts


def test_a_reopened_file_is_the_file(session: Session, s3_root: Root) -> None:
    content = bytes(range(256)) * 8
    s3_root.write_bytes("x", content)
    with open_source(f"{s3_root.uri}/x", session) as reopened:
        assert (reopened.size(), reopened.read(10), reopened.tell()) == (2048, content[:10], 10)
        session.renew()
        assert reopened.read_at(300, 2000) == content[2000:]
        assert (reopened.seek(-5, 2), reopened.read()) == (2043, content[-5:])
    with pytest.raises(FileNotFoundError):
        open_source(f"{s3_root.uri}/y", session)


def test_a_profile_whose_process_gives_temporary_credentials_is_asked_again_before_they_expire(
    s3_options: dict[str, str], s3_root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given.json"

    def give(options: Mapping[str, str]) -> None:
        given.write_text(
            json.dumps(
                {
                    "Version": 1,
                    "AccessKeyId": options["AWS_ACCESS_KEY_ID"],
                    "SecretAccessKey": options["AWS_SECRET_ACCESS_KEY"],
                    "Expiration": (datetime.now(UTC) + timedelta(minutes=5)).isoformat(),
                }
            )
        )

    script = tmp_path / "credentials.sh"
    script.write_text(f"#!/bin/sh\ncat {given}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "config").write_text(f"[profile temporary]\ncredential_process = {script}\nregion = us-east-1\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "temporary")
    with faulty_proxy(s3_options) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.options["AWS_ENDPOINT_URL"])
        monkeypatch.setenv("ATTNINF_ROOT", s3_root.uri)
        give(s3_options)
        resource = resources_from(read_settings())["lake"]
        assert isinstance(resource, LakeResource)
        lake = resource.tables()
        lake.replace("scores", scores_of("web", "a", 3))
        give(RENEWED)
        proxy.expired = {s3_options["AWS_ACCESS_KEY_ID"]}
        lake.replace("scores", scores_of("web", "a", 4))
        assert len(lake.read("scores")) == 4
        told = repr(resource) + repr(lake.root) + repr(lake.__dict__)
    assert RENEWED["AWS_SECRET_ACCESS_KEY"] not in told


def test_temporary_credentials_are_fetched_once_for_all_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    script = tmp_path / "credentials.sh"
    later = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
    given = f'{{"Version": 1, "AccessKeyId": "key-%s", "SecretAccessKey": "hush", "Expiration": "{later}"}}'
    script.write_text(f"#!/bin/sh\necho >> {calls}\nprintf '{given}' $(wc -l < {calls})\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "config").write_text(f"[profile temporary]\ncredential_process = {script}\nregion = us-east-1\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "temporary")
    monkeypatch.setenv("ATTNINF_ROOT", "s3://lake/prefix")

    def options() -> Mapping[str, str]:
        resource = resources_from(read_settings())["lake"]
        assert isinstance(resource, LakeResource)
        return resource.tables().root.storage_options

    first, n_calls = options(), calls.read_text()
    assert first["AWS_ACCESS_KEY_ID"].startswith("key-")
    assert [options(), options()] == [first, first]
    assert calls.read_text() == n_calls
    (tmp_path / "renewed").write_text((tmp_path / "config").read_text())
    (tmp_path / "renewed").replace(tmp_path / "config")  # another file: another chain
    assert options() != first
    again = options()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.delenv("AWS_PROFILE")
    assert options()["AWS_ACCESS_KEY_ID"] == "of-the-environment" != again["AWS_ACCESS_KEY_ID"]
