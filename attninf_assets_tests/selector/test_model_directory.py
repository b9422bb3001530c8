import json
import shutil
from pathlib import Path

import pytest

from attninf_assets.selector.model_directory import INDEX, digest_model, file_digests, model_files
from attninf_assets_tests.support.tiny_models import tiny_model
from benchmarks.rigs.made_up_text import tiny_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A model in several weight files with an index."""
    tiny_model("llama").save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    tiny_tokenizer().save_pretrained(tmp_path / "sharded")
    return tmp_path / "sharded"


def test_another_index_over_the_same_shards_is_another_model(sharded: Path) -> None:
    before = digest_model(sharded)
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"].pop("model.norm.weight")
    (sharded / INDEX).write_text(json.dumps(index))
    assert digest_model(sharded).model != before.model
    assert digest_model(sharded).tokenizer == before.tokenizer


def test_how_an_index_is_written_and_what_else_it_says_is_no_part_of_the_model(sharded: Path) -> None:
    before = digest_model(sharded)
    index = json.loads((sharded / INDEX).read_text())
    index = {"metadata": {"total_size": 1}, "weight_map": dict(reversed(index["weight_map"].items()))}
    (sharded / INDEX).write_text(json.dumps(index, indent=7))
    assert digest_model(sharded) == before


def test_an_index_beside_a_single_file_is_read_by_nobody_and_belongs_to_no_model(
    tiny_directory: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_directory, tmp_path / "copy"))
    (copy / INDEX).write_text("not even JSON")
    assert digest_model(copy) == digest_model(tiny_directory)
    assert file_digests(copy) == file_digests(tiny_directory)
    assert INDEX not in {file.name for file in model_files(copy)}


def test_digests_are_those_of_the_first_release(tmp_path: Path) -> None:
    """Digests that 0.1.0 made: every pin, selector and score is named by these."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}" if name == "config.json" else name.encode())
    assert digest_model(tmp_path).tokenizer == "bb94ff66a5bae71bba61708d1218c0c63a8ef44d83949437c70c4d6893b5255e"
    assert digest_model(tmp_path).model == "460b12b3cd2ac1ad38ee4aa2afe9549a2d03ba2b46c57cc830d9784027597d81"
