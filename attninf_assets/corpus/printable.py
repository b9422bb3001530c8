"""Text from outside, such as ids and file names, shown so that it cannot act on what shows it."""

import re

__all__ = ["printable", "shortened"]

_LONGEST = 300  # characters

# Control characters, line and paragraph separators, lone surrogates, and what reorders the characters around it.
# Joiners stay: words in Persian or Hindi, and emoji, are spelled with them.
_ACTING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_ACTING_WITHIN_LINES = re.compile(_ACTING.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def printable(text: object, *, lines: bool = False) -> str:
    """The text with an escape as in a Python string (`\\n`, `\\x1b`, `\\u202e`) for every character that would move
    the cursor, end the line or turn the reading direction. With `lines`, tabs and newlines stay as they are."""
    return (_ACTING_WITHIN_LINES if lines else _ACTING).sub(_escape, str(text))


def shortened(text: object, *, most: int = _LONGEST, lines: bool = False) -> str:
    """What `printable` makes of the text, cut where that is longer than `most` characters, and then with its length."""
    whole = str(text)
    shown = printable(whole[:most], lines=lines)
    return shown if len(whole) <= most and len(shown) <= most else f"{shown[:most]}… ({len(whole):,} characters)"


def _escape(character: re.Match[str]) -> str:
    return ascii(character[0])[1:-1]
