"""An explanation for a terminal: coloured where it has colours, and legible without."""

import re

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from attninf_assets.explaining.view import STRONG, Raised, ShownSource, View

__all__ = ["print_explanation", "reason_line"]

_STYLES = {
    -2: "black on #9ecae1",
    -1: "black on #deebf7",
    0: "",
    1: "black on #fff3d6",
    2: "black on #fedd9e",
    3: "black on #fdb863",
    4: "black on #f57f4f",
    5: "bold white on #b2182b",
}
_MOST_LISTED = 12
_WORDS = re.compile(r"\w+|\W+")


def print_explanation(view: View, console: Console) -> None:
    """Print where the document stands, its text in colours, and its strongest tokens with what they were copied from.

    Nothing in it is read as markup of the console.
    """
    # rich measures a joined emoji as one, and its parts, which stand in pieces here, as several: it would cut lines off
    console.print(Group(*_parts(view)), highlight=False, crop=False)


def reason_line(view: View) -> str:
    """One line: where the document stands, and its most raised tokens with where they were copied from."""
    score = view.facts.get("score", "none")
    rank = view.facts.get("rank in the domain")
    line = f"{view.domain} {view.doc_id}: score {score}" + (f", rank {rank}" if rank else "")
    copied: dict[str, str] = {}
    for one in view.raised:
        if one.sources and one.sources[0].is_copied:
            source = one.sources[0]
            head, _, _ = source.heads.partition(" ")
            by = f"+{one.piece.rise:.1f} nats, copied by {head} from {source.distance:,} tokens before"
            copied.setdefault(_WORDS.findall(one.before + one.piece.visible)[-1].strip(), by)
    told = [f"“{word}” {by}" for word, by in list(copied.items())[:3]]
    return f"{line}; most raised: {'; '.join(told)}" if told else line


def _parts(view: View) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(f"{view.domain}  {view.doc_id}", style="bold")]
    for verdict in view.verdicts:
        word = Text("in " if verdict.is_in else "out", style="bold green" if verdict.is_in else "bold red")
        kept = f"   (threshold {verdict.threshold_score:.4f}, {verdict.kept})"
        parts.append(Text.assemble("  ", word, f"  {verdict.selection}: {verdict.reason}", (kept, "dim")))
    if not view.verdicts:
        parts.append(Text("  no selection has a threshold in this domain yet"))
    parts += [Text(), _pairs(dict(view.facts))]
    if view.features:
        parts += [Text(), Text("features", style="bold"), _pairs(dict(view.features))]
    parts.append(Text())
    for agrees, told in view.findings:
        parts.append(Text.assemble(("  ok  " if agrees else "  NO  ", "green" if agrees else "bold red"), told))
    for window in view.windows:
        score = "" if window.score is None else f", score {window.score:.4f}"
        title = f"window {window.number} of {view.n_windows:,}: {window.n_tokens:,} tokens{score}"
        parts += [Text(), Rule(Text(title), align="left", style="dim")]
        parts.append(Text.assemble(*((piece.text, _STYLES[piece.level]) for piece in window.pieces)))
    if view.windows:
        parts += [Text(), Rule(style="dim"), _legend(), Text()]
    if view.raised:
        parts += [Text(_heading(view), style="bold"), _listed(view.raised[:_MOST_LISTED])]
    return parts


def _heading(view: View) -> str:
    n = min(_MOST_LISTED, len(view.raised))
    many = f"{view.n_strong:,} tokens are raised by {STRONG:g} nat or more"
    return f"{many}, {view.share_of_strong:.0%} of all rise; the {n} strongest:"


def _legend() -> Text:
    steps = [("0.1", 1), ("0.3", 2), ("1", 3), ("2", 4), ("4", 5)]
    told: list[str | tuple[str, str]] = ["loss rises by nats: "]
    told += [(f" {least} ", _STYLES[level]) for least, level in steps]
    return Text.assemble(*told, "   falls: ", (" 0.1 ", _STYLES[-1]), (" 0.3 ", _STYLES[-2]))


def _pairs(rows: dict[str, str]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    return Padding(table, (0, 0, 0, 2))


def _listed(raised: tuple[Raised, ...]) -> RenderableType:
    return Group(*(line for one in raised for line in (_token(one), *map(_source, one.sources))))


def _token(one: Raised) -> Text:
    base, reference = one.piece.losses
    return Text.assemble(
        (f"{one.piece.rise:+7.2f}", "bold"),
        f"  {base:.2f} → {reference:.2f}  ",
        ("…" + one.before, "dim"),
        (one.piece.visible, _STYLES[one.piece.level]),
        (one.after + "…", "dim"),
    )


def _source(source: ShownSource) -> Text:
    what = ("copied from ", "green") if source.is_copied else ("looked at ", "dim")
    place = ("" if source.anchor is None else "…" + source.before, "dim")
    return Text.assemble(
        "         ", what, place, (source.visible, "bold"), f", {source.distance:,} back by {source.heads}"
    )
