"""A few documents of every domain, read from the source files: for probes, and for the rates of a preview."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from attninf_assets.corpus.documents import Document, Shard
from attninf_assets.corpus.readers import read_shard
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions

__all__ = ["sample_texts"]

_TRIES = 4  # files of a domain that are opened at most, as a multiple of those that are to be read
_READ_CHARACTERS = 20_000  # of one document; a longer one has had its share


def sample_texts(
    shards: Iterable[Shard],
    *,
    seed: int,
    shards_per_domain: int,
    documents_per_shard: int,
    storage_options: StorageOptions = NO_OPTIONS,
    pass_over: Callable[[Shard, ValueError], None] | None = None,
) -> dict[str, list[list[str]]]:
    """By domain, in their order, and shard drawn by `seed`: the beginnings of its first documents.

    Raises ValueError, naming the file, for a file that cannot be read; where `pass_over` is given, it is told of the
    file instead, and the next one drawn takes its place. Where three in four cannot be read, fewer are.
    """

    def readable(drawn: Iterable[Shard]) -> Iterator[list[str]]:
        for shard in drawn:
            try:
                rows = read_shard(shard, storage_options=storage_options)
                documents = islice((row for row in rows if isinstance(row, Document)), documents_per_shard)
                yield [document.text[:_READ_CHARACTERS] for document in documents]
            except ValueError as error:
                if pass_over is None:
                    raise
                pass_over(shard, error)

    by_domain: dict[str, list[Shard]] = {}
    for shard in sorted(shards, key=lambda shard: rank(shard.key, seed=seed)):
        by_domain.setdefault(shard.domain, []).append(shard)
    return {
        domain: list(islice(readable(by_domain[domain][: _TRIES * shards_per_domain]), shards_per_domain))
        for domain in sorted(by_domain)
    }


def rank(text: str, *, seed: int) -> str:
    """By which texts are put into an order that is random and depends on nothing but them and the seed."""
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()
