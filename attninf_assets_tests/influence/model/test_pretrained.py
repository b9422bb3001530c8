"""A pinned model as it is loaded: numeric class, start token, context, nothing made up."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attninf_assets.influence.model.mixed_precision import product_type
from attninf_assets.influence.model.pretrained import choose_numeric_class, load_model
from attninf_assets.influence.runtime.devices import choose_device
from attninf_assets.selector.pinning import pin_model

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

CPU = torch.device("cpu")


@pytest.fixture
def directory(tiny_directory: Path, tmp_path: Path) -> Path:
    """A model directory to spoil."""
    return Path(shutil.copytree(tiny_directory, tmp_path / "source"))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_weights_are_loaded_in_the_numeric_class(tiny_directory: Path) -> None:
    assert product_type(load_model(tiny_directory, numeric_class="bfloat16", device=CPU)) == torch.bfloat16
    assert product_type(load_model(tiny_directory, numeric_class="float8", device=CPU)) == torch.bfloat16
    assert product_type(load_model(tiny_directory, numeric_class="float32", device=CPU)) == torch.float32


def test_a_tokenizer_with_nothing_to_open_a_document_is_refused(directory: Path, tmp_path: Path) -> None:
    edit(directory / "tokenizer_config.json", lambda c: [c.pop("bos_token"), c.pop("eos_token")])
    with pytest.raises(ValueError, match="neither a BOS nor an EOS"):
        pin_model(str(directory), tmp_path / "pinned")


def test_matrix_units_decide_the_numeric_class() -> None:
    assert choose_numeric_class(torch.device("cuda")) == "bfloat16"
    assert choose_numeric_class(CPU) == "float32"
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else choose_device().type)
