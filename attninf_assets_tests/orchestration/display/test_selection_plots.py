"""The pictures of selections that would be, and of bands: what they draw is what is there."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from attninf_assets.orchestration.display import selection_plots
from attninf_assets.selection.bands import score_bands
from attninf_assets.selection.what_if import FRACTIONS, what_if
from attninf_assets_tests.support.drawn_scores import connection_to, scored_row


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(selection_plots, "_markdown", lambda figure, _: figures.append(figure))
    return figures


ROWS = [scored_row(domain, f"{n:03d}", n / 100, n_tokens=1 + n % 7) for domain in ("web", "code") for n in range(100)]


def test_curves_are_told_apart_without_colour_and_hold_every_fraction(drawn: list[Figure]) -> None:
    columns = ("doc_id", "domain", "shard", "score", "n_tokens", "selector_fingerprint")
    held = [{name: row[name] for name in columns} for row in ROWS[:10]]
    with connection_to(scores=ROWS, selected_subset=held) as connection:
        selection_plots.what_if_curves(what_if(connection, selector_fingerprint="f"))
    (figure,) = drawn
    assert len(figure.axes) == 6
    by_documents, by_tokens = figure.axes[0].lines
    assert [np.asarray(line.get_xdata()).tolist() for line in (by_documents, by_tokens)] == [list(FRACTIONS)] * 2
    assert by_documents.get_marker() != by_tokens.get_marker()
    assert by_documents.get_linestyle() != by_tokens.get_linestyle()
    assert np.asarray(by_documents.get_ydata())[5] == 0.8
    assert {axes.get_ylim() for axes in (*figure.axes[1:3], *figure.axes[4:])} == {(0, 1.05)}


def test_a_bar_for_each_band_with_documents_and_one_scale_of_lengths(drawn: list[Figure]) -> None:
    with connection_to(
        scores=[*ROWS, *(scored_row("few", str(n), float(n), n_tokens=9) for n in range(3))]
    ) as connection:
        selection_plots.band_bars(score_bands(connection, selector_fingerprint="f").to_pylist())
    (figure,) = drawn
    assert [len(axes.patches) for axes in figure.axes] == [20, 0, 20, 3, 0, 3, 20, 0, 20]
    assert len({figure.axes[row].get_ylim() for row in (2, 5, 8)}) == 1
