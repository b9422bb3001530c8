"""The tokens of a text with their places in it, window by window, so that the text can be shown token by token."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attninf_assets.influence.model.packing import cut_into_windows
from attninf_assets.influence.model.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class PlacedWindow:
    """A window of a text, as scoring cuts it, with the places of its tokens, in characters of the whole text."""

    number: int  # of the text's windows, from 0
    token_ids: Sequence[int]
    start: int  # where the window's text begins
    ends: Sequence[int]  # just behind each token's last character; never falls


@dataclass(frozen=True)
class Piece:
    """A stretch of the text and the tokens that make it: one, or several that split a character among them."""

    start: int  # characters of the text
    end: int
    first: int  # tokens of the window
    last: int  # just behind the last


def placed_windows(tokenizer: TextTokenizer, text: str, *, max_tokens: int) -> list[PlacedWindow]:
    """The text's windows; the text of each begins where that of the one before ends, and the last ends with the text.

    What a normalizer dropped belongs to the token behind it, or to the last. Raises `ValueError` where the tokenizer
    does not tell where its tokens stand.
    """
    if tokenizer.encode_with_ends is None:
        raise ValueError(f"tokenizer {tokenizer.name} does not tell where its tokens stand in a text")
    ids, told = tokenizer.encode_with_ends(text)
    ends = np.maximum.accumulate(np.asarray(told, dtype=np.int64)).tolist()
    if ends:
        ends[-1] = len(text)
    placed, first, start = [], 0, 0
    for number, window in enumerate(cut_into_windows(0, ids, max_tokens=max_tokens)):
        last = first + len(window.token_ids)
        placed.append(PlacedWindow(number, ids[first:last], start, ends[first:last]))
        first, start = last, ends[last - 1]
    return placed


def pieces_of(window: PlacedWindow) -> list[Piece]:
    """The window's text in pieces that follow each other without gaps; each has a character at least.

    Only a window that has no character of its own, because its tokens finish one that belongs to the window before,
    is one piece without any.
    """
    found: list[Piece] = []
    start = window.start
    for token, end in enumerate(window.ends):
        if found and (end == start or found[-1].start == found[-1].end):
            found[-1] = Piece(found[-1].start, end, found[-1].first, token + 1)
        else:
            found.append(Piece(start, end, token, token + 1))
        start = end
    return found
