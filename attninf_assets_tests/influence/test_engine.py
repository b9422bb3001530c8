from pathlib import Path

import pytest
import torch

from attninf_assets.influence.document_score import Text
from attninf_assets.influence.engine import load_engine
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import Selector
from attninf_assets_tests.support import oracle
from attninf_assets_tests.support.tiny_models import CONTEXT, save_tiny_model, tiny_model
from benchmarks.rigs.made_up_text import tiny_text_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

CPU = torch.device("cpu")
TEXT = "The old keeper painted seven maps beside the road. " * 30


@pytest.mark.parametrize("bos", [True, False])
def test_an_engine_scores_what_the_oracle_scores_up_to_the_models_context(bos: bool, tmp_path: Path) -> None:
    """GPT-2's positions are a table of `CONTEXT` rows: one token more in a window would be an error."""
    save_tiny_model(tmp_path, name="gpt2", bos=bos)
    engine = load_engine(tmp_path, numeric_class="float32", max_tokens=4096, device=CPU)
    assert (engine.start_token_name, engine.start_token) == (("bos", 1) if bos else ("eos", 2))
    assert engine.max_tokens == CONTEXT - 1
    name = "bos" if bos else "eos"
    selector = Selector("m", "t", (Head(1, 1), Head(2, 0)), "uniform", engine.max_tokens, name, "float32")
    [[found]] = engine.score(selector, [Text("a", TEXT)], n_bytes=len(TEXT))
    ids = tiny_text_tokenizer().encode(TEXT)
    assert found.n_tokens == len(ids) > CONTEXT
    for loss, masked in [(found.loss_base, oracle.NOBODY), (found.loss_reference, frozenset({(1, 1), (2, 0)}))]:
        expected = oracle.document_losses(
            tiny_model("gpt2"), ids, start_token=engine.start_token, max_tokens=CONTEXT - 1, masked=masked
        )
        assert loss == pytest.approx(oracle.mean(expected), abs=1e-4)


def test_the_last_engine_stays_loaded(tiny_directory: Path) -> None:
    one = load_engine(tiny_directory, numeric_class="float32", max_tokens=64, device=CPU)
    assert load_engine(tiny_directory, numeric_class="float32", max_tokens=64, device=CPU) is one
    assert load_engine(tiny_directory, numeric_class="float32", max_tokens=65, device=CPU) is not one


def test_a_model_whose_heads_cannot_be_masked_makes_no_engine(tmp_path: Path) -> None:
    save_tiny_model(tmp_path, name="bloom")
    with pytest.raises(ValueError, match="architecture 'bloom' bypasses"):
        load_engine(tmp_path, numeric_class="float32", max_tokens=64, device=CPU)
