"""What is measured of a text, for many texts at once; the definitions stand in `measured`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import zstandard

from attninf_assets.scores.features.words import Words

__all__ = ["FEATURES_VERSION", "LEVELS", "MEASURES", "PHRASES", "measured"]

FEATURES_VERSION = 1  # raised when the same text gets other features: all are computed anew then
ZSTD_LEVEL = 3
PHRASES = (
    "permission is hereby granted",
    "redistribution and use in source and binary forms",
    "licensed under the",
    "gnu general public license",
    "gnu lesser general public license",
    "apache license",
    "mit license",
    "bsd license",
    "mozilla public license",
    "creative commons",
    "spdx-license-identifier",
    "without warranty of any kind",
    "all rights reserved",
    "copyright (c)",
    "copyright ©",
)
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL")
_LICENCE = "(?i-u)" + "|".join(
    phrase.replace("(", r"\(").replace(")", r"\)").replace(" ", r"[ \t\r\n]+") for phrase in PHRASES
)
_TIME = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
_LOG = (
    rf"(?m)^[\[(<]?(?:(?:[0-9]{{4}}[-/][0-9]{{2}}[-/][0-9]{{2}}[T ])?{_TIME}"
    rf"|(?:{'|'.join(LEVELS)})[\])>:| \t]|Traceback \(most recent call last\))"
)

MEASURES = pa.schema(
    [
        ("n_bytes", pa.int64()),
        ("n_words", pa.int64()),
        ("repetition", pa.float64()),
        ("repeated_lines", pa.float64()),
        ("zstd_ratio", pa.float64()),
        ("alphabetic", pa.float64()),
        ("licence_markers", pa.int64()),
        ("log_markers", pa.int64()),
        ("minhash_bands", pa.list_(pa.int64())),
    ]
)


def measured(texts: Sequence[str]) -> pa.Table:
    """The features of each text, in order, in the columns `MEASURES`. No text is empty.

    A word is a run of characters that are not Unicode white space. `repetition` is (g - d) / g for g word 4-grams, d of
    them different, 0 where there are none; `repeated_lines` the same for lines, white space around them removed and
    blank ones left out. `zstd_ratio` is bytes of one zstd frame by bytes of UTF-8, `alphabetic` letters by characters
    (Unicode's category L, code points). `licence_markers` counts `PHRASES`, in any case, words apart by any blanks,
    without overlap from left to right; `log_markers` lines that begin, perhaps in a bracket, with a time as 12:34:56, a
    date as 2026-11-27 before it or not, with one of `LEVELS` and a blank or one of `])>:|`, or as a traceback does.
    `minhash_bands` is described in `minhash.py`.
    """
    text = pl.col("text")
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String}).with_row_index("document")
    counted = frame.select(
        characters=text.str.len_chars(),
        letters=text.str.replace_all(r"\P{L}+", "").str.len_chars(),
        licence_markers=text.str.count_matches(_LICENCE),
        log_markers=text.str.count_matches(_LOG),
    )
    words = Words.of(frame["text"])
    grams, of_gram = words.grams(4)
    lines = (
        frame.with_columns(text.str.split("\n"))
        .explode("text", empty_as_null=False)
        .with_columns(text.str.strip_chars())
        .filter(text != "")
    )
    utf8 = [one.encode() for one in texts]
    n_bytes_N = np.array([len(one) for one in utf8])
    zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    compressed_N = np.array([len(zstd.compress(one)) for one in utf8])
    columns = {
        "n_bytes": n_bytes_N,
        "n_words": words.n_words_N,
        "repetition": _repeated(pl.DataFrame({"document": of_gram, "what": grams}), len(texts)),
        "repeated_lines": _repeated(lines.rename({"text": "what"}), len(texts)),
        "zstd_ratio": compressed_N / n_bytes_N,
        "alphabetic": (counted["letters"] / counted["characters"]).to_numpy(),
        "licence_markers": counted["licence_markers"].to_numpy(),
        "log_markers": counted["log_markers"].to_numpy(),
        "minhash_bands": words.minhash_bands(),
    }
    return pa.table({name: pa.array(columns[name], MEASURES.field(name).type) for name in MEASURES.names})


def _repeated(found: pl.DataFrame, n_documents: int) -> npt.NDArray[np.float64]:
    """Of each document's rows, which say `what` is found in it, the share that is there before."""
    shares = found.group_by("document").agg(repeated=1 - pl.col("what").n_unique() / pl.len())
    repeated_N = np.zeros(n_documents)
    repeated_N[shares["document"].to_numpy()] = shares["repeated"].to_numpy()
    return repeated_N
