"""Fixtures around language models; a test module asks for them with `pytest_plugins`."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from attninf_assets.influence.model.pretrained import load_model
from attninf_assets.influence.model.text_tokenizer import TextTokenizer, load_tokenizer
from attninf_assets.sample.model import fetch_sample_model
from attninf_assets.selector.pinning import pin_model
from attninf_assets_tests.support.tiny_models import save_tiny_model
from benchmarks.rigs.made_up_text import tiny_tokenizer

SAMPLE = Path(__file__).parents[2] / ".sample"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side: one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The tiny tokenizer."""
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory of a tiny Llama and the tiny tokenizer; read-only."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def sample_directory() -> Path:
    """The real sample model as a Hugging Face directory; converted once, kept beside the download."""
    pinned = SAMPLE / "pinned"
    SAMPLE.mkdir(exist_ok=True)
    with FileLock(SAMPLE / "pinned.lock"):
        if not pinned.exists():
            scratch = Path(tempfile.mkdtemp(dir=SAMPLE, prefix="pinning-"))
            try:
                pin_model(str(fetch_sample_model(SAMPLE / "model")), scratch)
                os.replace(scratch, pinned)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
    return pinned


@pytest.fixture(scope="session")
def sample_model(sample_directory: Path) -> Any:
    """The real sample model, float32 on the CPU; its attention implementation is whatever was used last."""
    return load_model(sample_directory, numeric_class="float32", device=torch.device("cpu"))


@pytest.fixture(scope="session")
def sample_tokenizer(sample_directory: Path) -> TextTokenizer:
    """The sample model's own tokenizer."""
    return load_tokenizer(sample_directory)
