from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.model.head import BASE, Head, HeadSet
from attninf_assets.influence.model.stream_tree import stream_tree

N_LAYERS = 5
# Few heads, so that streams often agree for a while.
head_sets = st.frozensets(st.builds(Head, st.integers(0, N_LAYERS - 1), st.integers(0, 1)), max_size=5)
streams_ = st.lists(head_sets, min_size=1, max_size=8)


def prefix(heads: HeadSet, layer: int) -> tuple[tuple[int, int], ...]:
    """What a stream masks in this layer and below, written out."""
    return tuple(sorted((head.layer, head.index) for head in heads if head.layer <= layer))


@given(streams=streams_)
def test_a_layer_has_a_row_for_each_distinct_prefix(streams: list[HeadSet]) -> None:
    tree = stream_tree(tuple(streams), n_layers=N_LAYERS)
    for layer in range(N_LAYERS):
        assert tree.n_rows[layer] == len({prefix(heads, layer) for heads in streams})
        for one, row in zip(streams, tree.rows_LS[layer], strict=True):
            for other, other_row in zip(streams, tree.rows_LS[layer], strict=True):
                assert (row == other_row) == (prefix(one, layer) == prefix(other, layer))


@given(streams=streams_)
def test_following_the_splits_from_the_input_leads_every_row_through_its_streams_prefixes(
    streams: list[HeadSet],
) -> None:
    tree = stream_tree(tuple(streams), n_layers=N_LAYERS)
    passed: list[tuple[tuple[int, int], ...]] = [()]  # by row: the heads masked on the way
    for layer in range(N_LAYERS):
        passed = [passed[below] for below in tree.splits.get(layer, range(len(passed)))]
        own = [streams[first] for first in tree.stream_of_row(layer)]
        assert len(passed) == len(own)
        passed = [
            (*way, *sorted((h.layer, h.index) for h in heads if h.layer == layer))
            for way, heads in zip(passed, own, strict=True)
        ]
    assert [passed[row] for row in tree.row_of_stream] == [prefix(heads, N_LAYERS) for heads in streams]


@given(streams=streams_)
def test_rows_never_become_fewer_and_only_layers_that_split_are_named(streams: list[HeadSet]) -> None:
    tree = stream_tree(tuple(streams), n_layers=N_LAYERS)
    before = (1, *tree.n_rows[:-1])
    assert all(above >= below for below, above in zip(before, tree.n_rows, strict=True))
    assert set(tree.splits) == {n for n in range(N_LAYERS) if tree.n_rows[n] > before[n]}


@given(streams=streams_)
def test_without_a_shared_trunk_every_distinct_stream_is_a_row_of_its_own_in_every_layer(
    streams: list[HeadSet],
) -> None:
    tree = stream_tree(tuple(streams), n_layers=N_LAYERS, share_trunk=False)
    assert set(tree.n_rows) == {len(set(streams))}
    assert len(set(tree.rows_LS)) == 1


def test_streams_that_are_all_different_stand_in_the_callers_order() -> None:
    streams = (frozenset({Head(3, 0)}), BASE, frozenset({Head(0, 1)}), frozenset({Head(3, 0), Head(4, 1)}))
    assert stream_tree(streams, n_layers=N_LAYERS).row_of_stream == (0, 1, 2, 3)
    assert stream_tree((streams[0], *streams), n_layers=N_LAYERS).row_of_stream == (0, 0, 1, 2, 3)
