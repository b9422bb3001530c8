from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.model.packing import Window, cut_into_windows, longest_first, pack

tokens = st.lists(st.integers(3, 99), max_size=40)
windows = st.lists(st.lists(st.integers(3, 99), min_size=1, max_size=20), min_size=1, max_size=12).map(
    lambda texts: [Window(number, ids) for number, ids in enumerate(texts)]
)


@given(token_ids=tokens, max_tokens=st.integers(1, 15))
def test_windows_concatenate_to_the_document_and_only_the_last_is_short(token_ids: list[int], max_tokens: int) -> None:
    cut = cut_into_windows(7, token_ids, max_tokens=max_tokens)
    assert [token for window in cut for token in window.token_ids] == token_ids
    assert all(window.document == 7 for window in cut)
    assert all(len(window.token_ids) == max_tokens for window in cut[:-1])
    assert all(1 <= len(window.token_ids) <= max_tokens for window in cut)


@given(windows=windows)
def test_the_longest_windows_come_first_and_equals_keep_their_order(windows: list[Window]) -> None:
    ordered = longest_first(windows)
    assert sorted(ordered, key=lambda w: w.document) == windows
    for one, following in pairwise(ordered):
        assert (-len(one.token_ids), one.document) < (-len(following.token_ids), following.document)


@given(windows=windows)
def test_a_pack_is_its_windows_each_behind_a_start_token_with_positions_from_zero(windows: list[Window]) -> None:
    packed = pack(windows, start_token=1)
    ids, positions = packed.input_ids_T.tolist(), packed.position_ids_T.tolist()
    end_before = 0
    assert packed.lengths == [window.n_tokens for window in windows]
    for window, (start, end) in zip(windows, packed.bounds, strict=True):
        assert start == end_before
        assert ids[start:end] == [1, *window.token_ids]
        assert positions[start:end] == list(range(end - start))
        end_before = end
    assert end_before == len(ids)


@given(windows=windows)
def test_the_targets_are_the_documents_tokens_each_predicted_from_the_position_before(windows: list[Window]) -> None:
    packed = pack(windows, start_token=1)
    assert packed.targets_R.tolist() == [token for window in windows for token in window.token_ids]
    assert torch.equal(packed.input_ids_T[packed.predicting_rows_R + 1], packed.targets_R)
    assert len(packed.targets_R) == packed.n_tokens
