"""Odd documents are counted as a plain look at each text counts them."""

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.corpus import oddities
from attninf_assets.corpus.documents import Document
from attninf_assets.corpus.oddities import Oddities, OddityCounter


def _counted(texts: list[str]) -> Oddities:
    counter, documents = OddityCounter(), [Document(str(n), "web", "a", "x", n, text) for n, text in enumerate(texts)]
    for document in documents:
        counter.see(document)
    return counter.counted(pa.chunked_array([pa.array([one.text_sha256 for one in documents], pa.string())]))


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
@given(texts=st.lists(st.text(st.sampled_from("ab \t\n\r\x00\x0b\x1f\x7f\x80é漢"), min_size=1, max_size=5)))
def test_the_counts_are_those_of_a_plain_look_at_each_text(at_once: int, texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(oddities, "_LOOKED_AT_ONCE", at_once)
        patched.setattr(oddities, "GIANT", 6)
        found = _counted(texts)
    assert found == Oddities(
        one_character=sum(len(text.strip()) == 1 or len(text) == 1 for text in texts),
        control_characters=sum(bool(re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)) for text in texts),
        exact_duplicates=len(texts) - len(set(texts)),
        giants=sum(len(text.encode()) > 6 for text in texts),
        largest_bytes=max((len(text.encode()) for text in texts), default=0),
    )
