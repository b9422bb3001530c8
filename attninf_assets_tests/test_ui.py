"""Which of Dagster's warnings `make ui` passes on."""

import logging
from pathlib import Path

import pytest

from attninf_assets.ui import warns_rightly

_NOT_USED = "Found a dagster instance configuration value (dagster.yaml) in the current folder, but your DAGSTER_HOME \
environment variable is set to /home. The dagster.yaml file will not be used to configure Dagster unless it is placed \
in the same folder as DAGSTER_HOME."


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("dagster", logging.WARNING, "dev.py", 1, message, None, None)


def test_a_dagster_yaml_that_is_linked_into_the_home_is_used_and_another_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    assert warns_rightly(record(_NOT_USED))
    (home / "dagster.yaml").write_text("telemetry: {enabled: true}")
    assert warns_rightly(record(_NOT_USED))
    (home / "dagster.yaml").unlink()
    (home / "dagster.yaml").symlink_to(tmp_path / "dagster.yaml")
    assert not warns_rightly(record(_NOT_USED))
    assert warns_rightly(record("No configuration file found"))


def test_dagster_still_words_its_warning_so() -> None:
    from dagster._cli import dev

    assert " file will not be used to configure Dagster" in Path(dev.__file__).read_text()
