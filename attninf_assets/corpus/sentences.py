"""Sentences of the user's own corpus, from which the retrieval probes take their values."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, zip_longest

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.samples import rank, sample_texts
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions

__all__ = ["sample_sentences", "sentences_in"]

_FEWEST_WORDS = 4
_LONGEST_CHARACTERS = 400
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
    texts = sample_texts(
        shards,
        seed=seed,
        shards_per_domain=shards_per_domain,
        documents_per_shard=documents_per_shard,
        storage_options=storage_options,
        pass_over=pass_over,
    )
    domains = [_interleaved(_shuffled_sentences(of_shard, seed=seed) for of_shard in texts[name]) for name in texts]
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


def _shuffled_sentences(texts: Iterable[str], *, seed: int) -> list[str]:
    found = chain.from_iterable(sentences_in(text) for text in texts)
    return sorted(set(found), key=lambda sentence: rank(sentence, seed=seed))


def _interleaved(lists: Iterable[list[str]]) -> list[str]:
    """First of each, second of each, …"""
    return [sentence for turn in zip_longest(*lists) for sentence in turn if sentence is not None]
