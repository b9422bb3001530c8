"""Fixtures shared by the tests."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from attninf_assets.influence.runtime import devices
from attninf_assets.store.root import Root
from benchmarks.rigs.s3 import s3_server

# A busy machine is no reason to fail: time is no part of what these tests say.
settings.register_profile("attninf_assets", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("attninf_assets")


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, str]]:
    """Storage options of an S3 server that lives as long as the session; its bucket is `lake`."""
    with s3_server() as options:
        yield options


@pytest.fixture(scope="session", autouse=True)
def _own_device_locks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Test processes work side by side and may share a device, so each has locks of its own."""
    devices.LOCKS = tmp_path_factory.mktemp("devices")


@pytest.fixture
def s3_root(s3_options: dict[str, str]) -> Root:
    """A root of its own on S3."""
    return Root.at(f"s3://lake/{uuid.uuid4().hex}", s3_options)


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    """A root on local disk, then one on S3."""
    if request.param == "s3":
        s3: Root = request.getfixturevalue("s3_root")
        return s3
    return Root.at(tmp_path / "root")
