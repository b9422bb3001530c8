"""An explanation as it is shown: the text in pieces with a colour each, the strongest with the places they came from.

Text of the document is data: whatever acts in it is escaped as `corpus/printable.py` does, here and nowhere else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from attninf_assets.corpus.printable import printable, shortened
from attninf_assets.explaining.explanation import Explanation
from attninf_assets.explaining.standing import Verdict
from attninf_assets.influence.explanation import ExplainedWindow, Source
from attninf_assets.influence.model.placed_tokens import Piece, pieces_of

__all__ = ["LEVELS", "STRONG", "Raised", "ShownPiece", "ShownWindow", "View", "view_of"]

LEVELS = (0.1, 0.3, 1.0, 2.0, 4.0)  # nats: from here on a rise has the colour 1, 2, …; a fall the colour -1, -2
_LOWEST = -2
STRONG = 1.0  # nats: a token raised by this is followed to its sources; its probability falls to 37 % or less
_MOST_FOLLOWED = 300
_CONTEXT = 24  # characters beside a token that is shown in a list
_MOST_SOURCES = 2
_MOST_HEADS = 3  # that are named of those that looked at a place


@dataclass(frozen=True)
class ShownPiece:
    """A stretch of text that is shown in one colour."""

    anchor: str  # of letters and digits
    text: str  # fit to be shown
    rise: float  # nats
    losses: tuple[float, float]  # base and reference, nats

    @property
    def level(self) -> int:
        """The colour: 0 none, 1 to 5 a rise, -1 and -2 a fall."""
        steps = sum(abs(self.rise) >= least for least in LEVELS)
        return steps if self.rise >= 0 else max(_LOWEST, -steps)

    @property
    def is_line_break(self) -> bool:
        """Whether nothing of it would be seen but that a line ends."""
        return not self.text.strip() and "\n" in self.text

    @property
    def visible(self) -> str:
        """The text in one line, with signs for what would not be seen."""
        return _visible(self.text)


@dataclass(frozen=True)
class ShownSource:
    """A place that masked heads attended to."""

    anchor: str | None  # of the piece there; None for the start token
    text: str
    before: str
    distance: int  # tokens back from the one that was predicted
    is_copied: bool
    heads: str  # "L1H2 (93 %), L2H0 (41 %)": the weights that they gave it

    @property
    def visible(self) -> str:
        """The text in one line, with signs for what would not be seen."""
        return _visible(self.text)


@dataclass(frozen=True)
class Raised:
    """A strongly raised piece with the text beside it, and where the masked heads had looked."""

    piece: ShownPiece
    before: str
    after: str
    sources: tuple[ShownSource, ...]

    @property
    def told(self) -> str:
        """One line that says how much, and from where."""
        base, reference = self.piece.losses
        line = f"loss {base:.2f} → {reference:.2f} nats (+{self.piece.rise:.2f})"
        return "; ".join([line, *(_told(source) for source in self.sources)])


@dataclass(frozen=True)
class ShownWindow:
    """A window of the document, as it is shown."""

    number: int  # from 1
    n_tokens: int
    score: float | None
    pieces: tuple[ShownPiece, ...]


@dataclass(frozen=True)
class View:
    """All that a page or a terminal shows of an explanation; every string of it is fit to be shown."""

    domain: str
    doc_id: str
    facts: Mapping[str, str]
    verdicts: tuple[Verdict, ...]
    findings: tuple[tuple[bool, str], ...]
    features: Mapping[str, str]
    heads: str
    windows: tuple[ShownWindow, ...]
    n_windows: int
    raised: tuple[Raised, ...]  # the strongest, most raised first
    n_strong: int
    n_tokens: int
    share_of_strong: float  # of all that is raised, in the windows shown

    @property
    def is_sound(self) -> bool:
        """Whether all comparisons agree."""
        return all(agrees for agrees, _ in self.findings)

    @cached_property
    def followed(self) -> dict[str, Raised]:
        """The strongest pieces by their anchor."""
        return {one.piece.anchor: one for one in self.raised}

    @cached_property
    def anchors(self) -> frozenset[str]:
        """What can be pointed to: the strongest pieces and their sources."""
        sources = chain.from_iterable(one.sources for one in self.raised)
        return frozenset(self.followed) | {source.anchor for source in sources if source.anchor is not None}

    @property
    def part_shown(self) -> str | None:
        """Which windows are shown, where not all are."""
        if not self.windows or len(self.windows) == self.n_windows:
            return None
        first, last = self.windows[0].number, self.windows[-1].number
        which = f"window {first}" if first == last else f"windows {first} to {last}"
        return f"{which} of {self.n_windows:,}"


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


def _told(source: ShownSource) -> str:
    what = "copied from" if source.is_copied else "heads looked at"
    return f"{what} “{source.before}{source.visible}”, {source.distance:,} tokens back, by {source.heads}"


def _flat(text: str) -> str:
    """In one line."""
    return printable(text, lines=True).replace("\n", "⏎").replace("\t", "⇥")


def _visible(text: str) -> str:
    flat = text.replace("\n", "⏎").replace("\t", "⇥")
    return flat if text.strip() else flat.replace(" ", "␣")


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
