"""Whatever stands in a document is text on the page and in the terminal, shown once, and nothing else."""

import io
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from attninf_assets.corpus.printable import printable
from attninf_assets.explaining.explanation import Explanation, Finding
from attninf_assets.explaining.lookup import StoredDocument
from attninf_assets.explaining.output import to_page
from attninf_assets.explaining.showing import view_of
from attninf_assets.explaining.standing import Rank, Verdict
from attninf_assets.explaining.terminal import print_explanation, reason_line
from attninf_assets.explaining.view import View
from attninf_assets.influence.attended_positions import Attended
from attninf_assets.influence.explanation import ExplainedText, ExplainedWindow
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.model.placed_tokens import placed_windows
from attninf_assets.influence.selector import Selector
from benchmarks.rigs.browser import find_chromium, open_page
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer

_ELSEWHERE = "http://elsewhere.test"
_MARKUP = [
    "<script>document.title='owned'</script>",
    f"<img src={_ELSEWHERE}/a onerror=document.title='owned'>",
    f'"><link rel=stylesheet href="{_ELSEWHERE}/b">',
    f"</div></main><meta http-equiv=refresh content='0;url={_ELSEWHERE}/c'>",
    f"</style><style>@import '{_ELSEWHERE}/d';</style>",
    "' onmouseover=alert(1) x='",
    "{{ 7 * 7 }}{% raw %}",
    "[bold red]no markup[/bold red]",
    "\x1b[31m\x1b]8;;http://elsewhere.test\x07",
    "\u202eright\u2066 to left\x00",
    "\r\n \t&amp;&#60;",
    "<!--",
    "]]>",
    "👩‍👩‍👧 日本",
]
_texts = st.lists(st.sampled_from([*_MARKUP, *sentences()[:3]]) | st.text(max_size=6), min_size=1, max_size=8).map(
    "".join
)
_HEADS = (Head(0, 1), Head(1, 0))


def explanation(text: str, *, doc_id: str = "d", seed: int = 0, max_tokens: int = 60) -> Explanation:
    """An explanation with random losses and attention: there is much to be shown of it."""
    rng = np.random.default_rng(seed)
    windows = []
    for placed in placed_windows(tiny_text_tokenizer(), text, max_tokens=max_tokens):
        n = len(placed.token_ids)
        positions = torch.from_numpy(np.minimum(rng.integers(0, n + 1, (n + 1, 3)), np.arange(n + 1)[:, None]))
        weights = torch.from_numpy(rng.dirichlet([1, 1, 1], n + 1))
        losses = rng.exponential(2, (2, n))
        windows.append(ExplainedWindow(placed, losses, {head: Attended(positions, weights) for head in _HEADS}))
    indexed = {"shard": "a", "source_uri": f"/data/{doc_id}", "source_row": 3, "n_bytes": 9, "text_sha256": "x"}
    scored: dict[str, Any] = {"score": 0.5, "loss_base": 2.0, "loss_reference": 3.0, "n_tokens": 9, "shard": "a"}
    scored["scored_at"] = datetime(2026, 1, 1, tzinfo=UTC)
    return Explanation(
        StoredDocument("web", doc_id, indexed, scored, {"repetition": 0.5, "duplicate_group": doc_id}),
        Selector("m", "t", _HEADS, "uniform", max_tokens, "bos", "float32"),
        Rank(1, 3),
        [Verdict("paper", True, f"because of {doc_id}", 0.1, doc_id, "2 of 3")],
        [Finding(False, f"the text of {doc_id} is another")],
        text,
        ExplainedText(sum(len(window.placed.token_ids) for window in windows), len(windows), tuple(windows)),
    )


class _Page(HTMLParser):
    """The elements and attributes of a page, and the text of its parts of class `text`."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.text = ""
        self._inside = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        given = dict(attrs)
        self.links |= {given["href"] or ""} if "href" in given else set()
        self.ids += [given["id"] or ""] if "id" in given else []
        if self._inside or given.get("class") == "text":
            self._inside += 1

    def handle_endtag(self, tag: str) -> None:
        self._inside = max(0, self._inside - 1)

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.text += data


@cache
def _plain() -> _Page:
    return _Page(to_page(view_of(explanation(" ".join(sentences()[:9])))))


@settings(deadline=None, max_examples=40)
@given(text=_texts, doc_id=_texts, seed=st.integers(0, 9))
@example(text="".join(_MARKUP), doc_id="".join(_MARKUP), seed=1)
def test_a_page_shows_every_character_once_and_has_no_element_of_the_documents_making(
    text: str, doc_id: str, seed: int
) -> None:
    page = _Page(to_page(view_of(explanation(text, doc_id=doc_id, seed=seed))))
    assert page.text == printable(text, lines=True)
    assert page.elements <= _plain().elements
    assert page.attributes <= _plain().attributes
    assert not page.elements & {"script", "img", "link", "iframe", "object", "base", "form"}
    assert all(link.startswith("#") for link in page.links)
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


@settings(deadline=None, max_examples=30)
@given(text=_texts, doc_id=_texts, colours=st.booleans())
@example(text=f"{_MARKUP[0]}{_MARKUP[-1]}{sentences()[0]}", doc_id="d", colours=False)
def test_a_terminal_is_given_no_control_character_that_is_not_the_consoles_own(
    text: str, doc_id: str, colours: bool
) -> None:
    view = view_of(explanation(text, doc_id=doc_id, max_tokens=10_000))
    file = io.StringIO()
    system = "truecolor" if colours else None
    print_explanation(view, Console(file=file, force_terminal=colours, color_system=system, width=100))  # type: ignore[arg-type]
    shown = file.getvalue()
    if colours:
        shown = "".join(part.partition("m")[2] if n else part for n, part in enumerate(shown.split("\x1b[")))
    assert shown == printable(shown, lines=True)
    assert "".join(printable(text, lines=True).split()) in "".join(shown.split())
    assert len(reason_line(view).splitlines()) == 1


def test_parts_of_a_long_document_are_called_parts() -> None:
    whole = explanation(" ".join(sentences()[:30]))
    explained = whole.explained
    assert explained is not None
    assert explained.n_windows > 4
    part = ExplainedText(explained.n_tokens, explained.n_windows, explained.windows[1:3])
    view = view_of(Explanation(**{**vars(whole), "explained": part}))
    assert view.part_shown == f"windows 2 to 3 of {explained.n_windows}"
    assert view.part_shown in to_page(view)
    assert view_of(whole).part_shown is None


def test_a_rise_has_its_colour_and_only_strong_ones_are_followed() -> None:
    view = view_of(explanation(" ".join(sentences()[:9])))
    pieces = [piece for window in view.windows for piece in window.pieces]
    assert {piece.level for piece in pieces} == {-2, -1, 0, 1, 2, 3, 4, 5}
    for piece in pieces:
        assert (piece.level >= 3) == (piece.rise >= 1)
        assert (piece.level > 0) == (piece.rise >= 0.1)
        assert (piece.level < 0) == (piece.rise <= -0.1)
    strong = sorted((piece.rise for piece in pieces if piece.rise >= 1), reverse=True)
    assert [one.piece.rise for one in view.raised] == strong
    assert view.share_of_strong == pytest.approx(sum(strong) / sum(p.rise for p in pieces if p.rise > 0))


def _followed(view: View) -> tuple[str, str]:
    return next(
        (one.piece.anchor, source.anchor)
        for one in view.raised
        for source in one.sources
        if source.anchor is not None and source.anchor != one.piece.anchor
    )


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="chromium is not installed (apt-get install chromium)")
def test_in_a_browser_nothing_is_asked_for_no_script_runs_and_a_token_points_at_its_source(tmp_path: Path) -> None:
    text = "".join(_MARKUP) + " ".join(sentences()[:9])
    view = view_of(explanation(text, doc_id="".join(_MARKUP)))
    file = tmp_path / "page.html"
    file.write_text(to_page(view), encoding="utf-8")
    token, source = _followed(view)
    with open_page(tmp_path / "profile") as page:
        page.watch_requests()
        page.go(f"{file.as_uri()}#{token}")
        page.wait_for_text("document.title='owned'", "Checks")
        assert page.evaluate("document.title").startswith("web <script>")
        framed = "getComputedStyle(document.getElementById({!r})).outlineStyle"
        assert page.evaluate(framed.format(source)) == "solid"
        page.evaluate("location.hash = ''")
        assert page.evaluate(framed.format(source)) == "none"
        assert page.evaluate("document.querySelectorAll('script, img, iframe, link').length") == 0
        assert page.evaluate("[...document.querySelectorAll('*')].filter(e => e.onmouseover || e.onerror).length") == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert {url.partition("#")[0] for url in page.requested} == {file.as_uri()}
