"""The features of a text in plain loops over its characters: what the fast path must agree with."""

import unicodedata
from collections.abc import Sequence

import zstandard

__all__ = ["alphabetic", "jaccard", "licence_markers", "lines", "log_markers", "repeated", "shingles", "words", "zstd"]

WHITE_SPACE = {
    *map(chr, range(0x9, 0xE)),
    *map(chr, range(0x2000, 0x200B)),
    *" \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000",
}
BLANKS = " \t\r\n"


def words(text: str) -> list[str]:
    found, word = [], ""
    for character in text + " ":
        if character not in WHITE_SPACE:
            word += character
        elif word:
            found.append(word)
            word = ""
    return found


def lines(text: str) -> list[str]:
    found = []
    for line in text.split("\n"):
        solid = [place for place, character in enumerate(line) if character not in WHITE_SPACE]
        if solid:
            found.append(line[solid[0] : solid[-1] + 1])
    return found


def shingles(text: str, n: int) -> list[tuple[str, ...]]:
    of = words(text)
    return [tuple(of[begin : begin + n]) for begin in range(len(of) - n + 1)]


def repeated(things: Sequence[object]) -> float:
    """The share of things that stood before."""
    seen: list[object] = []
    n_repeated = 0
    for thing in things:
        if thing in seen:
            n_repeated += 1
        seen.append(thing)
    return n_repeated / len(things) if things else 0.0


def zstd(text: str) -> float:
    compressed = zstandard.compress(text.encode(), 3)
    assert zstandard.decompress(compressed).decode() == text
    return len(compressed) / len(text.encode())


def alphabetic(text: str) -> float:
    return sum(unicodedata.category(character)[0] == "L" for character in text) / len(text)


def licence_markers(text: str, phrases: tuple[str, ...]) -> int:
    n, place = 0, 0
    while place < len(text):
        ends = [end for phrase in phrases if (end := _end_of(phrase, text, place))]
        n += bool(ends)
        place = ends[0] if ends else place + 1
    return n


def _end_of(phrase: str, text: str, place: int) -> int:
    """Where the phrase ends that begins at `place`; 0 where none does."""
    for character in phrase:
        begin = place
        if character == " ":
            while place < len(text) and text[place] in BLANKS:
                place += 1
        elif place < len(text) and (text[place] == character or text[place] in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
            place += text[place].lower() == character
        if place == begin:
            return 0
    return place


def log_markers(text: str, levels: tuple[str, ...]) -> int:
    return sum(_is_of_a_log(line, levels) for line in text.split("\n"))


def _is_of_a_log(line: str, levels: tuple[str, ...]) -> bool:
    if line[:1] in ("[", "(", "<"):
        line = line[1:]
    if any(line.startswith(level) and line[len(level) : len(level) + 1] in tuple("])>:| \t") for level in levels):
        return True
    if line.startswith("Traceback (most recent call last)"):
        return True
    shape = "".join("9" if character in "0123456789" else character for character in line[:19])
    dates = ("9999-99-99", "9999/99/99", "9999-99/99", "9999/99-99")
    return shape[:8] == "99:99:99" or (shape[:10] in dates and shape[10:11] in ("T", " ") and shape[11:] == "99:99:99")


def jaccard(one: str, other: str, n: int) -> float:
    left, right = set(shingles(one, n)), set(shingles(other, n))
    return len(left & right) / len(left | right)
