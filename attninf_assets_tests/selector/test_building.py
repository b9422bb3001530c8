"""pin_selector_model: what it remembers of GGUF files, and what becomes of a damaged memory."""

import logging
from pathlib import Path

import pytest

from attninf_assets.selector import building
from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.selector.stored import PinnedModel, pinned_model
from attninf_assets.store.root import Root


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"model": "m"}', b'{"model": "..", "tokenizer": "t"}'])
def test_a_gguf_file_is_converted_once_and_again_only_where_the_memory_of_it_is_damaged(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    """The conversion itself is tested with pinning; here it is a directory with a config, and is counted."""
    converted: list[str] = []

    def convert(source: str, directory: Path) -> ModelDigests:
        converted.append(source)
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        return ModelDigests("m", "t")

    monkeypatch.setattr(building, "pin_model", convert)
    gguf = tmp_path / "a.gguf"
    gguf.write_bytes(b"weights")
    expected = PinnedModel(ModelDigests("m", "t"), str(gguf))
    for times in (1, 1):
        assert building.pin_selector_model(root, str(gguf)) == expected == pinned_model(root)
        assert len(converted) == times
    (memo,) = root.list("selectors/gguf")
    content = root.read_bytes(memo)
    root.write_bytes(memo, damage)
    with caplog.at_level(logging.WARNING):
        for times in (2, 2):
            assert building.pin_selector_model(root, str(gguf)) == expected == pinned_model(root)
            assert len(converted) == times
    assert "the file is converted anew" in caplog.text
    assert root.read_bytes(memo) == content
