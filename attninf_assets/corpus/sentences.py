"""Sentences of the user's own corpus, from which the retrieval probes take their values."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, zip_longest

from attninf_assets.corpus.documents import Document, Shard
from attninf_assets.corpus.readers import read_shard
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions

__all__ = ["sample_sentences", "sentences_in"]

_FEWEST_WORDS = 4
_LONGEST_CHARACTERS = 400
_TRIES = 4  # files of a domain that are opened at most, as a multiple of those that are to be read
_READ_CHARACTERS = 20_000  # of one document; a longer one has had its share
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+")


def sample_sentences(
    shards: Iterable[Shard],
    *,
    n: int,
    seed: int,
    storage_options: StorageOptions = NO_OPTIONS,
    shards_per_domain: int = 16,
    documents_per_shard: int = 64,
    pass_over: Callable[[Shard, ValueError], None] | None = None,
) -> list[str]:
    """At most `n` distinct sentences of the corpus, spread evenly over domains, and inside a domain over its shards.

    Reads the first `documents_per_shard` documents of `shards_per_domain` shards of every domain, drawn by `seed`. The
    answer depends on the files and the arguments alone, not on the order in which the shards are listed.

    Raises ValueError, naming the file, for a file that cannot be read; where `pass_over` is given, it is told of the
    file instead, and the next one drawn takes its place. Where three in four cannot be read, fewer are.
    """

    def readable(drawn: Iterable[Shard]) -> Iterator[list[str]]:
        for shard in drawn:
            try:
                yield _shuffled_sentences(
                    shard, seed=seed, storage_options=storage_options, documents_per_shard=documents_per_shard
                )
            except ValueError as error:
                if pass_over is None:
                    raise
                pass_over(shard, error)

    by_domain: dict[str, list[Shard]] = {}
    for shard in sorted(shards, key=lambda shard: _rank(shard.key, seed=seed)):
        by_domain.setdefault(shard.domain, []).append(shard)
    domains = [
        _interleaved(islice(readable(by_domain[domain][: _TRIES * shards_per_domain]), shards_per_domain))
        for domain in sorted(by_domain)
    ]
    return list(islice(dict.fromkeys(_interleaved(domains)), n))


def sentences_in(text: str) -> Iterator[str]:
    """The text's sentences: within one line, from a capital letter to . ! or ?, of at least four words."""
    for line in text.splitlines():
        for sentence in _BETWEEN_SENTENCES.split(line.strip()):
            if (
                sentence[:1].isupper()
                and sentence[-1] in ".!?"
                and len(sentence) <= _LONGEST_CHARACTERS
                and len(sentence.split()) >= _FEWEST_WORDS
            ):
                yield sentence


def _shuffled_sentences(
    shard: Shard, *, seed: int, storage_options: StorageOptions, documents_per_shard: int
) -> list[str]:
    rows = read_shard(shard, storage_options=storage_options)
    documents = islice((row for row in rows if isinstance(row, Document)), documents_per_shard)
    found = chain.from_iterable(sentences_in(document.text[:_READ_CHARACTERS]) for document in documents)
    return sorted(set(found), key=lambda sentence: _rank(sentence, seed=seed))


def _interleaved(lists: Iterable[list[str]]) -> list[str]:
    """First of each, second of each, …"""
    return [sentence for turn in zip_longest(*lists) for sentence in turn if sentence is not None]


def _rank(text: str, *, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()
