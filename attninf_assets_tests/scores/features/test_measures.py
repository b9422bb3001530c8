"""What is measured of texts, many at once, is what plain loops find in each."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.scores.features.measures import LEVELS, MEASURES, PHRASES, measured
from attninf_assets_tests.support import feature_oracle as oracle

_PIECES = [
    *("a ", "b ", "the same ", "word", " ", "\n", "\n\n", "\t", "\r\n", "\u2003", "\x85", "\x1f"),
    *("é", "ж ", "中文", "1 ", ".", "\0", "Copyright\n(C) ", "copyright © 1999 ", "MIT License ", "creative "),
    *("mit licensed under the  Apache\tLicense ", "All rights reserved", "ſpdx-license-identifier"),
    *("GNU General Public License", "\nERROR: no", "\n[WARN] x", "\nINFOrmal ", "\n2026-11-27 10:00:00 up"),
    *("\n(12:00:00) hi", "12:00:00 late", "\n2026/11/27T1", "\nTraceback (most recent call last):\n"),
    *(" <DEBUG> ", "\n<DEBUG> "),
]
_ASSIGNED = st.characters(exclude_categories=("Cs", "Cn"))
TEXTS = st.one_of(
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=30).map("".join), st.text(_ASSIGNED, min_size=1)
)


def _rows(texts: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = measured(texts).to_pylist()
    return rows


@settings(max_examples=150)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_features_are_those_of_plain_loops(texts: list[str]) -> None:
    rows = _rows(texts)
    assert len(rows) == len(texts)
    for text, row in zip(texts, rows, strict=True):
        bands = row.pop("minhash_bands")
        assert isinstance(bands, list)
        assert len(bands) == (14 if len(oracle.words(text)) >= 5 else 0)
        assert row == {
            "n_bytes": len(text.encode()),
            "n_words": len(oracle.words(text)),
            "repetition": pytest.approx(oracle.repeated(oracle.shingles(text, 4)), abs=1e-12),
            "repeated_lines": pytest.approx(oracle.repeated(oracle.lines(text)), abs=1e-12),
            "zstd_ratio": pytest.approx(oracle.zstd(text), abs=1e-12),
            "alphabetic": pytest.approx(oracle.alphabetic(text), abs=1e-12),
            "licence_markers": oracle.licence_markers(text, PHRASES),
            "log_markers": oracle.log_markers(text, LEVELS),
        }, text


@given(st.lists(TEXTS, min_size=1, max_size=5), st.integers(0, 5))
def test_a_texts_features_do_not_depend_on_the_texts_beside_it(texts: list[str], at: int) -> None:
    assert measured(texts[:at]).to_pylist() + measured(texts[at:]).to_pylist() == measured(texts).to_pylist()


@given(TEXTS)
def test_a_copy_appended_repeats_all_that_was_there_before(text: str) -> None:
    (one,), (two,) = _rows([text]), _rows([f"{text}\n{text}"])
    n_grams = max(0, int(str(one["n_words"])) - 3)
    n_grams_of_two = max(0, 2 * int(str(one["n_words"])) - 3)
    repeats, repeats_of_two = float(str(one["repetition"])) * n_grams, float(str(two["repetition"])) * n_grams_of_two
    assert repeats_of_two >= repeats + n_grams - 1e-9
    assert float(str(two["repeated_lines"])) >= float(str(one["repeated_lines"])) - 1e-12
    assert two["n_words"] == 2 * int(str(one["n_words"]))
    assert int(str(two["log_markers"])) >= 2 * int(str(one["log_markers"]))


def test_the_first_example_of_the_method_is_told_apart() -> None:
    """A traceback twenty times over, an MIT licence and prose: the score takes the first two for reasoning."""
    traceback = "Traceback (most recent call last):\n  File 'a.py', line 3, in run\nValueError: no such thing\n"
    licence = "MIT License\n\nCopyright (c) 2020 Nobody\n\nPermission is hereby granted, free of charge, to anyone"
    prose = "The keeper of the mill measured the bridge on a clear day, and sold it to a chemist near the river."
    looped, marked, plain = measured([20 * traceback, licence, prose]).to_pylist()
    assert (looped["repetition"] > 0.9, looped["repeated_lines"], looped["log_markers"]) == (True, 57 / 60, 20)
    assert (marked["licence_markers"], marked["repetition"]) == (3, 0)
    assert [plain[name] for name in ("repetition", "repeated_lines", "licence_markers", "log_markers")] == [0, 0, 0, 0]
    assert looped["zstd_ratio"] < 0.1 < plain["zstd_ratio"]


def test_no_text_is_a_table_without_rows() -> None:
    assert measured([]).schema.equals(MEASURES)


def test_features_do_not_change_unnoticed() -> None:
    """Stored features are kept as long as FEATURES_VERSION is: where this fails, raise it."""
    text = (
        "To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer the slings\nand arrows."
    )
    frame = pl.DataFrame(pl.from_arrow(measured([text, f"{text} {text}"])))
    assert frame["n_words"].to_list() == [22, 44]
    assert frame["minhash_bands"].list.head(2).to_list() == [
        [8791058820174947274, 4575404168826620370],
        [-4410495172298745931, 4575404168826620370],
    ]
