"""Explanation of a document's score: by how much each token's loss rises, and where the masked heads had looked.

The score is (loss_reference - loss_base) / loss_base; a document's losses are the means of its tokens', so the rises of
its tokens add up to what the score is made of. The query row is the one *before* a token, as in head detection
(arXiv 2404.15574): there the token is predicted. Shapes: S the two streams (base, reference), N tokens of a window.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attninf_assets.influence.attended_positions import Attended, AttendedPositions
from attninf_assets.influence.engine import Engine
from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.packing import Window, pack
from attninf_assets.influence.model.placed_tokens import PlacedWindow, placed_windows
from attninf_assets.influence.selector import Selector

N_WINDOWS = 4  # of a document that are explained by default
_N_POSITIONS = 3  # kept of what a head attends to
_LEAST_WEIGHT = 0.01  # of attention that is told


@dataclass(frozen=True)
class Source:
    """A place that masked heads attended to in the base model while it predicted a token."""

    token: int | None  # its number in the window; None is the start token
    weights: Mapping[Head, float]  # the heads that have it among their first, most attentive first
    is_copied: bool  # whether the token there is the one that was predicted


@dataclass(frozen=True)
class ExplainedWindow:
    """The tokens of a window with their losses under both streams, and where the masked heads attended."""

    placed: PlacedWindow
    losses_SN: npt.NDArray[np.float64]  # nats
    attended: Mapping[Head, Attended]  # positions of the row, where 0 is the start token

    @property
    def rises_N(self) -> npt.NDArray[np.float64]:
        """By how much each token's loss rises when the heads are masked, nats; below 0 where it falls."""
        return self.losses_SN[1] - self.losses_SN[0]

    def sources(self, token: int) -> list[Source]:
        """The places to which masked heads gave 1 % of their attention or more when the token was predicted, the three
        highest of each head: copied places first, then by weight."""
        weights: dict[int, dict[Head, float]] = {}
        ids, row = self.placed.token_ids, token  # behind the start token, the token itself stands at token + 1
        for head, attended in self.attended.items():
            for position, weight in zip(
                attended.positions_TN[row].tolist(), attended.weights_TN[row].tolist(), strict=True
            ):
                if weight >= _LEAST_WEIGHT:
                    weights.setdefault(position, {})[head] = weight
        found = [
            Source(
                token=None if position == 0 else position - 1,
                weights=dict(sorted(of_heads.items(), key=lambda one: (-one[1], one[0]))),
                is_copied=position > 0 and ids[position - 1] == ids[token],
            )
            for position, of_heads in weights.items()
        ]
        return sorted(found, key=lambda one: (not one.is_copied, -sum(one.weights.values()), one.token or 0))


@dataclass(frozen=True)
class ExplainedText:
    """A text whose windows, some or all of them, are explained."""

    n_tokens: int
    n_windows: int
    windows: tuple[ExplainedWindow, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every window is there, so that its losses are the document's."""
        return len(self.windows) == self.n_windows

    @property
    def losses(self) -> tuple[float, float]:
        """The mean losses of base and reference model over the tokens of the windows that are there, nats."""
        sums_S = sum((window.losses_SN.sum(axis=1) for window in self.windows), np.zeros(2))
        n_tokens = sum(len(window.placed.token_ids) for window in self.windows)
        return float(sums_S[0]) / max(1, n_tokens), float(sums_S[1]) / max(1, n_tokens)


def explain_text(
    engine: Engine, selector: Selector, text: str, *, first_window: int = 0, n_windows: int = N_WINDOWS
) -> ExplainedText:
    """The text's tokens with their losses, in `n_windows` windows from `first_window` on, counted from 0.

    Windows are those of scoring, each behind its own start token and a pass by itself. Raises `ValueError` for a first
    window beyond the last, and for a tokenizer that does not tell where its tokens stand.
    """
    windows = placed_windows(engine.tokenizer, text, max_tokens=selector.max_tokens)
    if first_window >= max(1, len(windows)):
        raise ValueError(f"first window {first_window + 1}: the document has {len(windows):,} windows")
    return ExplainedText(
        n_tokens=sum(len(window.token_ids) for window in windows),
        n_windows=len(windows),
        windows=tuple(_explained(engine, selector, window) for window in windows[first_window:][:n_windows]),
    )


def _explained(engine: Engine, selector: Selector, placed: PlacedWindow) -> ExplainedWindow:
    recorder = AttendedPositions(selector.heads, n=_N_POSITIONS)
    packed = pack([Window(0, placed.token_ids)], start_token=engine.start_token)
    losses_SR = engine.model.losses_SR(packed, [BASE, selector.head_set], mask=selector.mask, recorder=recorder)
    return ExplainedWindow(placed, losses_SR.cpu().numpy().astype(np.float64), recorder.of)
