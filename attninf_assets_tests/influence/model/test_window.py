"""The window: bounded by the model's context, and by where its positions would change."""

from types import SimpleNamespace

import pytest

from attninf_assets.influence.model.window import bounded_window, context_length
from attninf_assets_tests.support.tiny_models import CONTEXT, tiny_model


@pytest.mark.parametrize(
    ("name", "asked", "window"), [("llama", 10, 10), ("llama", 4096, CONTEXT - 1), ("bloom", 4096, 4096)]
)
def test_a_window_leaves_room_for_the_start_token_in_the_models_context(name: str, asked: int, window: int) -> None:
    assert bounded_window(asked, tiny_model(name).config) == window


def test_a_window_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens must be at least 1, is 0"):
        bounded_window(0, tiny_model("llama").config)


@pytest.mark.parametrize(
    ("rope", "window"),
    [
        ({"rope_type": "longrope", "original_max_position_embeddings": 64}, 63),
        ({"rope_type": "dynamic"}, 127),
        ({"rope_type": "default"}, 127),
    ],
)
def test_a_window_stays_below_where_its_length_would_change_its_neighbours_positions(
    rope: dict[str, object], window: int
) -> None:
    """LongRoPE and dynamic scaling choose their factors by the longest position in the row."""
    config = SimpleNamespace(max_position_embeddings=128, rope_parameters=rope)
    config.get_text_config = lambda: config
    assert bounded_window(4096, config) == window


@pytest.mark.parametrize(("name", "expected"), [("llama", CONTEXT), ("gpt2", CONTEXT), ("bloom", None)])
def test_the_context_is_what_the_positions_reach(name: str, expected: int | None) -> None:
    assert context_length(tiny_model(name).config) == expected
