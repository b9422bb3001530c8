"""An explanation as it is shown: the text in pieces with a colour each, the strongest with the places they came from.

Every string of it is fit to be shown: `showing.py` escapes what acts in text of the document.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from attninf_assets.explaining.standing import Verdict

__all__ = ["LEVELS", "STRONG", "Raised", "ShownPiece", "ShownSource", "ShownWindow", "View"]

LEVELS = (0.1, 0.3, 1.0, 2.0, 4.0)  # nats: from here on a rise has the colour 1, 2, …; a fall the colour -1, -2
_LOWEST = -2
STRONG = 1.0  # nats: a token raised by this is followed to its sources; its probability falls to 37 % or less


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


def _told(source: ShownSource) -> str:
    what = "copied from" if source.is_copied else "heads looked at"
    return f"{what} “{source.before}{source.visible}”, {source.distance:,} tokens back, by {source.heads}"


def _visible(text: str) -> str:
    flat = text.replace("\n", "⏎").replace("\t", "⇥")
    return flat if text.strip() else flat.replace(" ", "␣")
