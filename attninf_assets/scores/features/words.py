"""The words of many texts as numbers, and what follows from their sequence: n-grams, and a MinHash of each text.

A word's number is the first 8 bytes of its blake2b, so that what is stored of it never depends on a library's version.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from rensa import RMinHash

__all__ = ["N_BANDS", "ROWS_PER_BAND", "SHINGLE", "Words"]

# As of FineWeb (arXiv 2406.17557): of two texts whose sets of word 5-grams have a Jaccard similarity of s, a band of 8
# values is the same with probability s^8, and one of 14 with 1 - (1 - s^8)^14: .56 at .7, .92 at .8, .9998 at .9.
SHINGLE, N_BANDS, ROWS_PER_BAND = 5, 14, 8
_SEED = 1
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd; powers of it set the places of an n-gram, or of a band, apart


@dataclass(frozen=True)
class Words:
    """The words of N texts, W in all, one text after the other."""

    hashes_W: npt.NDArray[np.uint64]
    n_words_N: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: pl.Series) -> "Words":
        """The runs of characters that are not Unicode white space."""
        words = texts.str.extract_all(r"\S+")
        coded = words.explode(empty_as_null=False).to_arrow().dictionary_encode()
        distinct = b"".join(
            hashlib.blake2b(word.encode(), digest_size=8).digest() for word in coded.dictionary.to_pylist()
        )
        hashes_W = np.frombuffer(distinct, dtype="<u8")[coded.indices.to_numpy()]
        return cls(hashes_W, words.list.len().to_numpy().astype(np.int64))

    def grams(self, n: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """A hash of every n words that follow each other in one text, and the number of that text."""
        document_W = np.repeat(np.arange(len(self.n_words_N)), self.n_words_N)
        n_grams = max(0, len(self.hashes_W) - n + 1)
        inside_G = document_W[:n_grams] == document_W[len(document_W) - n_grams :]
        return self._combined(n)[inside_G], document_W[:n_grams][inside_G]

    def minhash_bands(self) -> pa.Array:
        """Of each text a list of `N_BANDS` hashes, each of `ROWS_PER_BAND` values of the MinHash of its word 5-grams.

        Two texts that share one are near duplicates. Below 5 words the list is empty. All but the words' numbers is
        rensa's R-MinHash.
        """
        shingles, _ = self.grams(SHINGLE)
        n_shingles_N = np.maximum(self.n_words_N - SHINGLE + 1, 0)
        ends_N = np.cumsum(n_shingles_N)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            shingles, np.concatenate([[0], ends_N]).astype(np.uint64), N_BANDS * ROWS_PER_BAND, _SEED
        )
        values = np.array(matrix.to_rows(), dtype=np.uint64).reshape(-1, N_BANDS, ROWS_PER_BAND)
        powers = np.array([pow(_MULTIPLIER, place, 1 << 64) for place in range(1, ROWS_PER_BAND + 1)], dtype=np.uint64)
        bands_NB = _mixed((values * powers).sum(axis=2) + np.arange(N_BANDS, dtype=np.uint64)).view(np.int64)
        some_N = n_shingles_N > 0
        offsets = np.concatenate([[0], np.cumsum(np.where(some_N, N_BANDS, 0))])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(bands_NB[some_N].ravel()))

    def _combined(self, n: int) -> npt.NDArray[np.uint64]:
        n_grams = max(0, len(self.hashes_W) - n + 1)
        sums = np.zeros(n_grams, dtype=np.uint64)
        for place in range(n):
            sums += self.hashes_W[place : place + n_grams] * np.uint64(pow(_MULTIPLIER, place, 1 << 64))
        return sums


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Numbers that are near each other, far apart: the finalizer of splitmix64."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
