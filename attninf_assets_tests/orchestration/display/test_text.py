"""Documents are shown as they are written, whatever is written in them."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from attninf_assets.corpus.printable import printable
from attninf_assets.orchestration.display.text import quoted

_MARKUP = [
    "```",
    "````",
    "~~~",
    "\n",
    "\r",
    "\r\n",
    "    ",
    "\t",
    "> ",
    "- ",
    "# a",
    "<img src=http://x.test/a>",
    "![a](http://x.test/b)",
]
_MARKUP += [
    "[a](http://x.test)",
    "</code></pre>",
    "&amp;",
    "\\",
    "`",
    "text",
    "\u202e",
    "\x1b[31m",
    "\0",
    "\u2028",
    "http://x.test",
]
_hostile = st.lists(st.one_of(st.sampled_from(_MARKUP), st.text(max_size=5)), max_size=20).map("".join)


def _blocks(markdown: str) -> list[tuple[str, str, str]]:
    """What a CommonMark parser makes of it, with the extensions that GitHub has, and raw HTML allowed."""
    return [
        (t.type, t.info, t.content) for t in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    ]


@given(text=_hostile)
@example("```\n# a heading\n\n[sign in](http://x.test) ![](http://x.test/a.png)\n```text")
@example("`````\n<img src=http://x.test/a.png>")
@example("~~~~")
@example("")
def test_a_quoted_text_is_one_code_block_that_holds_the_text(text: str) -> None:
    assert _blocks(quoted(text)) == [("fence", "text", printable(text, lines=True) + "\n")]


@given(texts=st.lists(_hostile, min_size=1, max_size=4))
def test_quoted_texts_after_each_other_are_a_block_each(texts: list[str]) -> None:
    blocks = _blocks("\n\n".join(map(quoted, texts)))
    assert blocks == [("fence", "text", printable(text, lines=True) + "\n") for text in texts]


@given(text=st.text(st.characters(codec="utf-8")) | _hostile)
def test_a_printable_text_is_one_line_in_which_nothing_acts(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(c) for c in shown} & {
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    }
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nroot: forged", r"a\nroot: forged"),
        ("\x1b[2Ja", r"\x1b[2Ja"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("Grüße, 日本, می\u200cخواهم, \\frac", "Grüße, 日本, می\u200cخواهم, \\frac"),
    ],
)
def test_what_acts_is_escaped_as_in_a_python_string_and_all_else_stays(text: str, shown: str) -> None:
    assert printable(text) == shown
