"""The making of what is shown of an explanation. Here all that comes from the document is made fit to be shown."""

import math
from typing import Any

from attninf_assets.corpus.printable import printable, shortened
from attninf_assets.explaining.explanation import Explanation
from attninf_assets.explaining.standing import Verdict
from attninf_assets.explaining.view import STRONG, Raised, ShownPiece, ShownSource, ShownWindow, View
from attninf_assets.influence.explanation import ExplainedWindow, Source
from attninf_assets.influence.model.placed_tokens import Piece, pieces_of

__all__ = ["view_of"]

_MOST_FOLLOWED = 300
_CONTEXT = 24  # characters beside a token that is shown in a list
_MOST_SOURCES = 2
_MOST_HEADS = 3  # that are named of those that looked at a place


def view_of(explanation: Explanation) -> View:
    """The explanation as it is shown."""
    explained, text = explanation.explained, explanation.text or ""
    windows: list[ShownWindow] = []
    strong: list[tuple[float, _Placed, int]] = []
    for window in explained.windows if explained is not None else ():
        placed = _Placed(window, text)
        windows.append(placed.shown)
        strong += [(piece.rise, placed, n) for n, piece in enumerate(placed.shown.pieces) if piece.rise >= STRONG]
    strong.sort(key=lambda one: -one[0])
    raised = sum(piece.rise for window in windows for piece in window.pieces if piece.rise > 0)
    return View(
        domain=printable(explanation.stored.domain),
        doc_id=shortened(explanation.stored.doc_id),
        facts={name: shortened(value) for name, value in _facts(explanation).items()},
        verdicts=tuple(_shown(verdict) for verdict in explanation.verdicts),
        findings=tuple((finding.agrees, shortened(finding.told)) for finding in explanation.findings),
        features={name: shortened(_number(value)) for name, value in (explanation.stored.features or {}).items()},
        heads=", ".join(map(str, explanation.selector.heads)),
        windows=tuple(windows),
        n_windows=0 if explained is None else explained.n_windows,
        raised=tuple(placed.raised(n) for _, placed, n in strong[:_MOST_FOLLOWED]),
        n_strong=len(strong),
        n_tokens=0 if explained is None else explained.n_tokens,
        share_of_strong=sum(rise for rise, _, _ in strong) / raised if raised else 0.0,
    )


class _Placed:
    """A window with its pieces, and which piece each of its tokens is in."""

    def __init__(self, window: ExplainedWindow, text: str) -> None:
        self._window, self._text = window, text
        self._pieces = pieces_of(window.placed)
        self._piece_of = [n for n, piece in enumerate(self._pieces) for _ in range(piece.first, piece.last)]
        base, reference = window.losses_SN.sum(axis=1).tolist()
        self.shown = ShownWindow(
            number=window.placed.number + 1,
            n_tokens=len(window.placed.token_ids),
            score=(reference - base) / base if base else None,
            pieces=tuple(map(self._shown, self._pieces)),
        )

    def _shown(self, piece: Piece) -> ShownPiece:
        base, reference = self._window.losses_SN[:, piece.first : piece.last].sum(axis=1).tolist()
        anchor = f"w{self._window.placed.number + 1}t{piece.first + 1}"
        return ShownPiece(
            anchor, printable(self._text[piece.start : piece.end], lines=True), reference - base, (base, reference)
        )

    def raised(self, number: int) -> Raised:
        """The piece of that number with its sources: those of its most raised token."""
        piece = self._pieces[number]
        rises = self._window.rises_N
        token = max(range(piece.first, piece.last), key=lambda n: rises[n])
        every = self._window.sources(token)
        sources = [source for source in every if source.is_copied] or every
        return Raised(
            piece=self.shown.pieces[number],
            before=self._before(piece.start),
            after=_flat(self._text[piece.end : min(piece.end + _CONTEXT, self._window.placed.ends[-1])]),
            sources=tuple(self._source(source, token) for source in sources[:_MOST_SOURCES]),
        )

    def _before(self, start: int) -> str:
        return _flat(self._text[max(self._window.placed.start, start - _CONTEXT) : start])

    def _source(self, source: Source, token: int) -> ShownSource:
        told = [f"{head} ({100 * weight:.0f} %)" for head, weight in source.weights.items()]
        heads = ", ".join(told[:_MOST_HEADS]) + (f" and {len(told) - _MOST_HEADS} more" if told[_MOST_HEADS:] else "")
        if source.token is None:
            return ShownSource(None, "start of the window", "", token + 1, source.is_copied, heads)
        number = self._piece_of[source.token]
        shown, piece = self.shown.pieces[number], self._pieces[number]
        return ShownSource(
            shown.anchor, shown.text, self._before(piece.start), token - source.token, source.is_copied, heads
        )


def _flat(text: str) -> str:
    """In one line."""
    return printable(text, lines=True).replace("\n", "⏎").replace("\t", "⇥")


def _shown(verdict: Verdict) -> Verdict:
    return Verdict(
        selection=printable(verdict.selection),
        is_in=verdict.is_in,
        reason=shortened(verdict.reason),
        threshold_score=verdict.threshold_score,
        threshold_doc_id=shortened(verdict.threshold_doc_id or ""),
        kept=shortened(verdict.kept or ""),
    )


def _facts(explanation: Explanation) -> dict[str, str]:
    stored, rank = explanation.stored, explanation.rank
    scored, indexed = stored.scored, stored.indexed
    facts: dict[str, str] = {}
    if scored is not None:
        facts["score"] = "null" if scored["score"] is None else f"{scored['score']:.4f}"
        if rank is not None:
            facts["rank in the domain"] = f"{rank.rank:,} of {rank.n_ranked:,}"
            facts["percentile"] = f"{rank.percentile:.1f}"
        facts["loss_base"] = f"{scored['loss_base']:.4f} nats per token"
        facts["loss_reference"] = f"{scored['loss_reference']:.4f} nats per token"
        facts["tokens"] = f"{scored['n_tokens']:,}"
        facts["scored"] = f"{scored['scored_at']:%Y-%m-%d %H:%M} UTC"
    facts["shard"] = f"{stored.domain}.{stored.shard}"
    if indexed is not None:
        facts["source"] = indexed["source_uri"]
        facts["row"] = f"{indexed['source_row']:,}"
        facts["bytes"] = f"{indexed['n_bytes']:,}"
    facts["retrieval heads masked"] = f"{len(explanation.selector.heads):,}"
    facts["selector"] = explanation.selector.fingerprint[:12]
    return facts


def _number(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
