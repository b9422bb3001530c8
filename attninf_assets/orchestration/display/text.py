"""Text of documents in the UI, which reads metadata as Markdown: shown as it is written, never as markup."""

import re

from attninf_assets.corpus.printable import printable

__all__ = ["quoted"]

_BACKTICKS = re.compile("`+")


def quoted(text: str) -> str:
    """Markdown that is one code block, and nothing else, with `text` in it; control characters are shown escaped.

    A fence ends only at a run of backticks as long as itself (CommonMark 0.31, section 4.5), so it is made longer than
    any in the text.
    """
    shown = printable(text, lines=True)
    fence = "`" * max(3, 1 + max((len(run) for run in _BACKTICKS.findall(shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}"
