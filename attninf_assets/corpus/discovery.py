"""The shards that a corpus has: the files that the globs of the corpus file match at this moment."""

import difflib
import re
from collections.abc import Callable, Iterator

from attninf_assets.corpus.config import CorpusConfig, DomainSource
from attninf_assets.corpus.documents import LandedShard, Shard, shard_name
from attninf_assets.corpus.printable import printable
from attninf_assets.store.filesystems import (
    NO_OPTIONS,
    FoundFile,
    StorageOptions,
    found_files,
    join,
    matches,
    standing_files,
)

__all__ = ["Corpus"]

_WAY_OUT = "if it is gone for good, run the job retire_shards"
_MAY_BE_A_SLUG = re.compile(r".+-[0-9a-f]{8}")


class Corpus:
    """The shards of a valid corpus file.

    It is meant to live as long as a run: listings are remembered to find single shards.
    """

    def __init__(self, config: CorpusConfig, *, storage_options: StorageOptions = NO_OPTIONS) -> None:
        self.config = config
        self.storage_options = storage_options
        self._paths: dict[str, dict[str, str]] = {}  # of a domain as listed last: paths below its root, by shard name

    def shards(self) -> list[Shard]:
        """A shard for every source file of every domain, sorted by key; none for a domain whose glob matches nothing.

        Lists anew. Raises ValueError if two files of a domain would have one name.
        """
        return [landed.shard for landed in self.landed_shards()]

    def landed_shards(self) -> list[LandedShard]:
        """The same shards as `shards`, each with its file's size and time as listed now."""
        landed = [shard for domain in self.config.domains for shard in self._listed(domain).values()]
        return sorted(landed, key=lambda landed: landed.shard.key)

    def find(self, key: str, *, indexed_from: Callable[[str], str | None] | None = None) -> LandedShard:
        """The shard with this key (`<domain>.<shard>`), its file's size and time as they are now.

        A name that is its file's own is looked up at the two paths it can stand for, and nothing is listed. Where it
        may be a slug, these come first: the file that the domain had when it was last listed here, and the one that
        `indexed_from` says the key was indexed from. Only where none of them is there the domain is listed, and that is
        remembered. Raises ValueError if there is none, naming what comes near, and if two files would both be the
        shard. Of a slug's two files, which have 8 hex digits of a sha256 in common, one that is found is not compared
        with the other, and faults of other shards are not noticed: `shards` sees them all.
        """
        domain, _, name = key.partition(".")
        if domain not in self.config.domains:
            known = ", ".join(sorted(self.config.domains))
            raise ValueError(f"{key!r}: {self.config.path} has no domain {domain!r}; it has {known}; {_WAY_OUT}")
        source = self.config.domains[domain]
        for paths in self._candidates(key, indexed_from):
            likely = [path for path in paths if matches(path, source.files.pattern) and _name(path, source) == name]
            if likely:
                there = standing_files(source.files.root, likely, storage_options=self.storage_options)
                if there:
                    return _by_name(domain, source, there)[name]
        shards = self._listed(domain)
        if name not in shards:
            near = [f"{domain}.{other}" for other in difflib.get_close_matches(name, sorted(shards), n=3)]
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise ValueError(
                f"{key!r}: none of the {len(shards)} files that domains.{domain}.files {source.files.written!r} of "
                f"{self.config.path} matches is this shard; was its file moved or deleted? ({_WAY_OUT}){hint}"
            )
        return shards[name]

    def domains_without(self, shards: list[Shard]) -> dict[str, DomainSource]:
        """The domains whose glob matched nothing when `shards` were listed."""
        found = {shard.domain for shard in shards}
        return {domain: source for domain, source in self.config.domains.items() if domain not in found}

    def _candidates(self, key: str, indexed_from: Callable[[str], str | None] | None) -> Iterator[list[str]]:
        """Paths below the domain's root that may be the shard's file, likely ones first; not yet compared with it."""
        domain, _, name = key.partition(".")
        source = self.config.domains[domain]
        own = [name, f"{name}.{source.format}"]
        if _MAY_BE_A_SLUG.fullmatch(name):
            if listed := self._paths.get(domain, {}).get(name):
                yield own if listed in own else [listed]
            known = indexed_from and indexed_from(key)
            below = join(source.files.root, "")
            if known and known.startswith(below):
                path = known.removeprefix(below)
                yield own if path in own else [path]
        yield own

    def _listed(self, domain: str) -> dict[str, LandedShard]:
        source = self.config.domains[domain]
        files = found_files(source.files.root, source.files.pattern, storage_options=self.storage_options)
        landed = _by_name(domain, source, files)
        self._paths[domain] = dict(zip(landed, [file.path for file in files], strict=True))
        return landed


def _name(path: str, source: DomainSource) -> str:
    return shard_name(path, format=source.format)


def _by_name(domain: str, source: DomainSource, files: list[FoundFile]) -> dict[str, LandedShard]:
    shards: dict[str, LandedShard] = {}
    for file in files:
        name, uri = _name(file.path, source), join(source.files.root, file.path)
        if name in shards:
            raise ValueError(
                f"domains.{domain}.files: {source.files.written!r} matches two files that would both be shard "
                f"{name!r}: {shards[name].shard.shown} and {printable(uri)}; rename one"
            )
        shard = Shard(
            domain=domain,
            name=name,
            uri=uri,
            format=source.format,
            text_column=source.text_column,
            id_column=source.id_column,
        )
        shards[name] = LandedShard(shard, n_bytes=file.n_bytes, modified_ns=file.modified_ns)
    return shards
