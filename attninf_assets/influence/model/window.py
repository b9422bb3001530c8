"""The window: how many tokens of a document are scored as one piece, by default and at most for a model."""

from typing import Any

MAX_TOKENS = 4096  # of a window by default, start token not counted


def bounded_window(max_tokens: int, config: Any) -> int:
    """The window in tokens: `max_tokens`, or what the model's context leaves beside the start token if that is less.

    With LongRoPE or dynamic scaling, it is the context before the scaling sets in that counts.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, is {max_tokens}")
    limits = [context_length(config), _rope_switches_at(config)]
    return min([max_tokens, *(limit - 1 for limit in limits if limit is not None)])


def _rope_switches_at(config: Any) -> int | None:
    """Where the longest position of a row changes every position's encoding, a document's score would depend on its
    neighbours: windows stay below that length. None for the usual, fixed encodings."""
    text_config = config.get_text_config()
    rope = getattr(text_config, "rope_parameters", None) or getattr(text_config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) not in ("longrope", "dynamic"):
        return None
    original = rope.get("original_max_position_embeddings")
    return original or getattr(text_config, "original_max_position_embeddings", None) or context_length(config)


def context_length(config: Any) -> int | None:
    """The longest row, in tokens, that the model's positions reach, start token included; None if unlimited."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
