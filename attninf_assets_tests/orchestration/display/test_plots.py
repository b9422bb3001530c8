"""The pictures: what they count is what is there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attninf_assets.influence.model.head import Head
from attninf_assets.orchestration.display import plots
from attninf_assets.scores.coverage import SHARD_STATES

_SCORES = st.lists(st.floats(-2, 5) | st.just(float("nan")), min_size=1, max_size=200).map(np.array)


def rectangles(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


@settings(deadline=None, max_examples=50)
@given(scores=_SCORES, cut=st.floats(-3, 6))
def test_the_bars_of_what_is_selected_count_the_scores_at_or_above_the_cut(scores: np.ndarray, cut: float) -> None:
    axes = Figure().subplots()
    edges = plots._bin_edges(scores, through=cut)
    plots._histogram(axes, scores, edges=edges, cut=cut)
    assert cut in edges
    finite = scores[np.isfinite(scores)]
    bars = [(bar.get_facecolor(), bar.get_height()) for bar in rectangles(axes)]
    selected = sum(height for colour, height in bars if colour == axes.patches[-1].get_facecolor())
    assert bars[0][0] != bars[-1][0]
    assert selected == (finite >= cut).sum()
    assert sum(height for _, height in bars) == len(finite)


_COUNTS = st.fixed_dictionaries({state: st.integers(0, 5000) for state in SHARD_STATES})


@settings(deadline=None, max_examples=15)
@given(shards=st.dictionaries(st.sampled_from(["code", "math", "web"]), _COUNTS, min_size=1))
def test_every_count_of_shards_is_drawn_and_written_and_no_two_states_look_alike(
    shards: dict[str, dict[str, int]],
) -> None:
    drawn: list[Figure] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(plots, "_markdown", lambda figure, _: drawn.append(figure))
        plots.coverage_bars(shards)
    (axes,) = drawn[0].axes
    parts = [bar for bar in rectangles(axes) if bar.get_width()]
    counted = [count for counts in shards.values() for count in counts.values() if count]
    assert sorted(bar.get_width() for bar in parts) == sorted(counted)
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in parts}
    assert len(looks) == len({state for counts in shards.values() for state, count in counts.items() if count})
    written = [text.split()[0] for label in axes.texts for text in label.get_text().split(", ")]
    assert sorted(int(text.replace(",", "")) for text in written) == sorted(counted)
    longest = max(sum(counts.values()) for counts in shards.values())
    assert axes.get_xlim()[1] >= longest
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_frames_are_around_whole_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "_markdown", lambda figure, _: drawn.append(figure))
    plots.head_heat_map(np.zeros((3, 4)), [Head(0, 0), Head(2, 3)])
    assert [list(frame.get_bbox().extents) for frame in rectangles(drawn[0].axes[0])] == [
        [-0.5, -0.5, 0.5, 0.5],
        [1.5, 2.5, 2.5, 3.5],
    ]


def test_every_bar_says_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "_markdown", lambda figure, _: drawn.append(figure))
    plots.answer_loss_bars({"base model": 0.19, "retrieval heads masked": 5.93})
    assert {text.get_text() for text in drawn[0].axes[0].texts} == {"0.19", "5.93"}
