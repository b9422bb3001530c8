"""Documents to read break out of no block, whatever they hold."""

import dagster as dg
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from attninf_assets.corpus.printable import printable
from attninf_assets.orchestration.display.excerpts import excerpts_markdown
from attninf_assets.selection.documents_to_read import Excerpt

_parts = st.sampled_from(
    ["```", "````", "\n", "#### top", "<img src=http://x.test/a>", "[a](http://x.test)", "\u202e", "\0"]
)
_texts = st.lists(_parts | st.text(max_size=4), max_size=9).map("".join)


def excerpt(text: str | None, *, doc_id: str, problem: str | None, rank: int = 1) -> Excerpt:
    length = None if text is None else len(text) + 5
    return Excerpt("top", rank, "web", "a", doc_id, 0.5, 7, text, length, problem, {"repetition": 0.25})


@given(text=st.none() | _texts, doc_id=_texts, problem=st.none() | _texts)
@example(text="```\n# owned\n````", doc_id="```\n# owned", problem="````text\n<b>")
def test_each_document_is_one_block_below_the_heading_of_its_place(
    text: str | None, doc_id: str, problem: str | None
) -> None:
    shown = [excerpt(text, doc_id=doc_id, problem=problem, rank=rank) for rank in (1, 2)]
    markdown = excerpts_markdown(shown).value
    assert markdown is not None
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    assert [token.type for token in tokens] == ["heading_open", "inline", "heading_close", "fence", "fence"]
    assert tokens[1].content == "top"
    for rank, token in enumerate(tokens[3:], start=1):
        assert token.content.startswith(f"rank {rank} · score 0.5000 · 7 tokens · repetition 0.25\nweb.a · ")
        assert printable(text or "", lines=True) in token.content
        assert (f"… ({len(text) + 5:,} characters)" in token.content) if text is not None else True


def test_a_domain_without_scores_says_so() -> None:
    assert excerpts_markdown([]) == dg.MetadataValue.md("no document has a score")
