"""Settings: none are needed, a wrong one stops everything before work starts and is named."""

import os
import re
from pathlib import Path

import pytest
from dagster_aws.s3 import S3Resource

import attninf_assets
from attninf_assets.definitions import definitions
from attninf_assets.orchestration.connections.resources import (
    CorpusResource,
    LakeResource,
    SelectionsResource,
    SelectorResource,
)
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.store.filesystems import options_now


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ATTNINF_")]:
        monkeypatch.delenv(name)


def test_without_any_setting_everything_is_the_sample_under_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    resources = resources_from(read_settings())
    lake, selector = resources["lake"], resources["selector"]
    assert isinstance(lake, LakeResource)
    assert isinstance(selector, SelectorResource)
    assert lake.storage_root().uri == str(tmp_path / "data")
    assert [selector.default_plan(device) for device in ("cpu", "mps", "cuda")] == ["small"] * 3
    assert list(tmp_path.iterdir()) == []  # nothing is fetched or written until something is materialized


def test_definitions_load_without_any_setting() -> None:
    assert definitions().resolve_all_asset_keys()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("ATTNINF_ROOT", "gs://bucket/x", r"ATTNINF_ROOT='gs://bucket/x'"),
        ("ATTNINF_ROOT", "s3://", r"ATTNINF_ROOT='s3://'"),
        ("ATTNINF_ROOT", "  ", r"ATTNINF_ROOT='  ': set but empty; unset it for the default, data"),
        ("ATTNINF_CORPUS", "no/such/corpus.yaml", r"ATTNINF_CORPUS='no/such/corpus\.yaml': no such file"),
        ("ATTNINF_SELECTOR", "no/such/model/dir", r"ATTNINF_SELECTOR='no/such/model/dir'"),
        ("ATTNINF_SELECTOR", "org/name", r"ATTNINF_SELECTOR='org/name'.*revision"),
        ("ATTNINF_SELECTOR", "@/x", r"ATTNINF_SELECTOR='@/x'.*revision"),
        ("ATTNINF_BUDGET", "", r"ATTNINF_BUDGET='': set but empty; unset it for the default, unlimited"),
        ("ATTNINF_BUDGET", "-1", r"ATTNINF_BUDGET='-1': not an amount of money, or unlimited: .*greater than or equal"),
        ("ATTNINF_DEVICE_HOUR_PRICE", "inf", r"ATTNINF_DEVICE_HOUR_PRICE='inf': not an amount of money"),
        ("ATTNINF_DEVICE_HOUR_PRICE", "3 €", r"ATTNINF_DEVICE_HOUR_PRICE='3 €': not an amount of money"),
        ("ATTNINF_PARTITIONS_PER_RUN", "4.5", r"ATTNINF_PARTITIONS_PER_RUN='4\.5': not a number of partitions"),
        ("ATTNINF_BUDGT", "5", r"unknown setting ATTNINF_BUDGT; did you mean ATTNINF_BUDGET\?"),
        ("ATTNINF_CORPUS", "x" * 300, r"ATTNINF_CORPUS='x{299}… \(302 characters\): no such file"),
        ("ATTNINF_SELECTOR", "x" * 300, r"ATTNINF_SELECTOR='x{299}… \(302 characters\): no such file"),
        ("ATTNINF_SELECTOR", "~nobody-of-that-name/x", r"ATTNINF_SELECTOR='~nobody-of-that-name/x': no such file"),
        (
            "ATTNINF_ROOT",
            "*" * 3000,
            r"ATTNINF_ROOT='\*{299}… \(3,002 .*: storage root '\*{200}…': expected s3://[^*]*\*\?",
        ),
        ("ATTNINF_\x1b[2J", "x", r"unknown setting ATTNINF_\\x1b\[2J; there are"),
        ("attninf_root", "data", r"unknown setting attninf_root; did you mean ATTNINF_ROOT\?"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=complaint):
        definitions()


def test_an_unknown_setting_is_named_and_its_value_which_may_be_a_secret_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ATTNINF_S3_SECRET", "hush")
    with pytest.raises(ValueError, match=r"unknown setting ATTNINF_S3_SECRET; there are ATTNINF_ROOT") as refusal:
        definitions()
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize("value", ["hooks.chat.example/hush", "ftp://hush", "hush"])
def test_a_webhook_that_is_no_address_stops_everything_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ATTNINF_ALERT_WEBHOOK", value)
    with pytest.raises(ValueError, match="ATTNINF_ALERT_WEBHOOK: not an http:// or https:// address") as refusal:
        definitions()
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    "value", ["s3://AKIA:5ecret/x@bucket/a.yaml", "s3://AKIA:5ec 5ecret@b/a", "https://host/a?token=5ecret"]
)
@pytest.mark.parametrize("name", ["ATTNINF_ROOT", "ATTNINF_CORPUS", "ATTNINF_SELECTOR", "ATTNINF_SAMPLE_DIR"])
def test_a_setting_with_credentials_in_its_address_is_refused_by_name_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}: an address .* with credentials") as refusal:
        definitions()
    assert "5ec" not in str(refusal.value)


def test_the_webhook_is_a_secret_in_errors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_ALERT_WEBHOOK", " ")
    with pytest.raises(
        ValueError, match=r"^ATTNINF_ALERT_WEBHOOK: set but empty; unset it for the default, no alerts$"
    ):
        definitions()


def test_every_wrong_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_CORPUS", "no/such/corpus.yaml")
    monkeypatch.setenv("ATTNINF_RESCORE", "weekly")
    with pytest.raises(ValueError, match=r"ATTNINF_CORPUS='no/such/corpus\.yaml': .*; ATTNINF_RESCORE='weekly': "):
        read_settings()


@pytest.mark.parametrize(("value", "limit"), [(None, None), ("unlimited", None), ("0", 0.0), ("12.5", 12.5)])
def test_the_spending_limit_is_an_amount_or_none(
    monkeypatch: pytest.MonkeyPatch, value: str | None, limit: float | None
) -> None:
    if value is not None:
        monkeypatch.setenv("ATTNINF_BUDGET", value)
    assert read_settings().budget == limit


def test_nothing_but_the_settings_reads_them() -> None:
    """Names of settings may be told, in messages and descriptions, but looked up in one module only."""
    package = Path(attninf_assets.__file__).parent
    reads = re.compile(r"(environ|getenv|EnvVar)\W.*ATTNINF_")
    assert [str(path) for path in package.rglob("*.py") if reads.search(path.read_text())] == []
    defines = [path.name for path in package.rglob("*.py") if "BaseSettings" in path.read_text()]
    assert defines == ["settings.py"]


@pytest.mark.parametrize("source", ["org/name@main", "org/na.me-2@refs/pr/1"])
def test_a_hub_id_with_any_kind_of_revision_is_a_selector(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv("ATTNINF_SELECTOR", source)
    selector = resources_from(read_settings())["selector"]
    assert isinstance(selector, SelectorResource)
    assert selector.resolved() == source


def test_an_s3_root_is_checked_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "a-profile-that-does-not-exist")
    monkeypatch.setenv("ATTNINF_ROOT", "s3://bucket/prefix")
    assert resources_from(read_settings())["lake"]
    monkeypatch.setenv("ATTNINF_ROOT", "s3://bucket/pre fix")
    with pytest.raises(ValueError, match=r"ATTNINF_ROOT='s3://bucket/pre fix'"):
        resources_from(read_settings())


def test_the_corpus_file_and_the_samples_directory_may_lie_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.yaml").write_text("domains:\n  web:\n    files: a/*.jsonl\n    format: jsonl\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ATTNINF_CORPUS", "~/corpus.yaml")
    monkeypatch.setenv("ATTNINF_SAMPLE_DIR", "~/sample")
    corpus = resources_from(read_settings())["corpus"]
    assert isinstance(corpus, CorpusResource)
    assert [glob.root for source in corpus.open().config.domains.values() for glob in source.files] == [
        str(tmp_path / "a")
    ]
    assert corpus.sample_dir == str(tmp_path / "sample")


def test_a_wrong_corpus_file_stops_the_definitions_naming_file_field_and_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text("domains:\n  web:\n    files: a/*.csv\n    format: csv\n")
    monkeypatch.setenv("ATTNINF_CORPUS", str(path))
    with pytest.raises(ValueError, match=r"(?s)corpus\.yaml.*domains\.web\.format.*csv"):
        definitions()


def test_a_model_directory_gets_the_papers_probe_plan_where_there_is_a_device_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_SELECTOR", str(tmp_path))
    selector = resources_from(read_settings())["selector"]
    assert isinstance(selector, SelectorResource)
    assert [selector.default_plan(device) for device in ("cpu", "mps", "cuda")] == ["small", "small", "paper"]
    assert selector.resolved() == str(tmp_path)


def test_storage_options_come_from_the_environments_own_chain_and_show_in_no_repr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-nobody-may-see")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("ATTNINF_ROOT", "s3://bucket/prefix")
    lake = resources_from(read_settings())["lake"]
    assert isinstance(lake, LakeResource)
    root = lake.storage_root()
    assert root.storage_options == {
        "AWS_ACCESS_KEY_ID": "an-id",
        "AWS_SECRET_ACCESS_KEY": "a-secret-nobody-may-see",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "eu-central-1",
        "AWS_ALLOW_HTTP": "true",
    }
    assert "a-secret" not in repr(root) + repr(lake)


def test_local_sources_ask_for_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "a-profile-that-does-not-exist")
    (tmp_path / "corpus.yaml").write_text("domains:\n  web:\n    files: a/*.jsonl\n    format: jsonl\n")
    lake = LakeResource(root=str(tmp_path / "root"), s3=S3Resource())
    corpus = CorpusResource(file=str(tmp_path / "corpus.yaml"), sample_dir=str(tmp_path), lake=lake)
    assert corpus.open().shards() == []
    assert options_now(corpus.open().storage_options) == {}


def test_a_selections_file_is_read_whole_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, selections = tmp_path / "corpus.yaml", tmp_path / "selections.yaml"
    corpus.write_text("domains:\n  web: {files: 'web/*.jsonl', format: jsonl}\n")
    monkeypatch.setenv("ATTNINF_CORPUS", str(corpus))
    monkeypatch.setenv("ATTNINF_SELECTIONS", str(selections))
    with pytest.raises(ValueError, match=r"ATTNINF_SELECTIONS='.*selections\.yaml': no such file"):
        read_settings()
    selections.write_text("selections:\n  lean: {keep: {fraction: 0.1}, domains: {wbe: exclude}}\n")
    with pytest.raises(ValueError, match=r"selections\.lean\.domains\.wbe: no such domain; did you mean web\?"):
        resources_from(read_settings())
    selections.write_text("selections:\n  lean: {keep: {fraction: 0.1}}\n")
    found = resources_from(read_settings())["selections"]
    assert isinstance(found, SelectionsResource)
    assert list(found.read().definitions) == ["lean"]
