"""Every character of a text is in one piece, and every token too, whatever the tokenizer."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attninf_assets.influence.model.placed_tokens import Piece, pieces_of, placed_windows
from attninf_assets.influence.model.text_tokenizer import TextTokenizer
from attninf_assets_tests.support.tiny_tokenizers import CONTROL, KINDS, tokenizer_of_kind
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer

_SPLIT = "a 日本 é\n\n 👩‍👩‍👧 ﬁ"  # characters that are several tokens, and one that NFKC makes two of
texts = st.lists(
    st.sampled_from([*sentences()[:9], _SPLIT, "\t\r\n", " ", *CONTROL]) | st.text(max_size=8), max_size=5
).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(text=texts, kind=st.sampled_from(sorted(KINDS.keys() - {"slow"})), max_tokens=st.integers(1, 12))
@example(text="👩‍👩‍👧", kind="byte-level BPE", max_tokens=3)
def test_every_character_and_every_token_is_in_one_piece(text: str, kind: str, max_tokens: int) -> None:
    tokenizer = TextTokenizer.of(tokenizer_of_kind(kind))
    windows = placed_windows(tokenizer, text, max_tokens=max_tokens)
    ids = tokenizer.encode(text)
    assert [id_ for window in windows for id_ in window.token_ids] == ids
    assert [len(window.token_ids) for window in windows] == [
        min(max_tokens, len(ids) - first) for first in range(0, len(ids), max_tokens)
    ]
    shown = [text[piece.start : piece.end] for window in windows for piece in pieces_of(window)]
    assert "".join(shown) == (text if ids else "")
    for window in windows:
        pieces = pieces_of(window)
        tokens = [token for piece in pieces for token in range(piece.first, piece.last)]
        assert tokens == [*range(len(window.token_ids))]
        assert all(piece.end > piece.start for piece in pieces) or len(pieces) == 1


def test_a_token_is_shown_where_it_stands_and_tokens_that_split_a_character_together() -> None:
    text = " the broken é"
    [window] = placed_windows(tiny_text_tokenizer(), text, max_tokens=100)
    assert [text[piece.start : piece.end] for piece in pieces_of(window)] == [" the", " broken", " ", "é"]
    assert pieces_of(window)[-1] == Piece(12, 13, 3, 5)


def test_a_tokenizer_that_tells_no_places_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="CTRLTokenizer does not tell where its tokens stand"):
        placed_windows(TextTokenizer.of(tokenizer_of_kind("slow")), "the", max_tokens=3)
