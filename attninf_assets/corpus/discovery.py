"""The shards that a corpus has: the files that the globs of the corpus file match at this moment."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.fs

from attninf_assets.corpus.config import CorpusConfig, DomainSource, Glob
from attninf_assets.corpus.documents import LandedShard, Shard, shard_name
from attninf_assets.corpus.printable import printable
from attninf_assets.store.filesystems import (
    NO_OPTIONS,
    FoundFile,
    StorageOptions,
    filesystem_for,
    found_files,
    join,
    matches,
    standing_files,
)

__all__ = ["Corpus"]

_EMPTY = "a domain without files (one that waits for its first says may_be_empty: true)"
_NAMED = 5  # entries of a folder that are named
_WAY_OUT = "if it is gone for good, run the job retire_shards"
_MAY_BE_A_SLUG = re.compile(r".+-[0-9a-f]{8}")


class Corpus:
    """The shards of a valid corpus file.

    It is meant to live as long as a run: listings are remembered to find single shards.
    """

    def __init__(self, config: CorpusConfig, *, storage_options: StorageOptions = NO_OPTIONS) -> None:
        self.config = config
        self.storage_options = storage_options
        self._listings: dict[str, dict[str, tuple[Glob, str]]] = {}  # of a domain as listed last: by shard name

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
        for candidates in self._candidates(key, indexed_from):
            there: list[tuple[Glob, FoundFile]] = []
            for glob, paths in candidates:
                likely = [path for path in paths if _matches(path, glob) and _name(path, source) == name]
                if likely:
                    found = standing_files(glob.root, likely, storage_options=self.storage_options)
                    there += [(glob, file) for file in found]
            if there:
                return _by_name(domain, source, there)[name]
        shards = self._listed(domain)
        if name not in shards:
            near = [f"{domain}.{other}" for other in difflib.get_close_matches(name, sorted(shards), n=3)]
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise ValueError(
                f"{key!r}: none of the {len(shards)} files that domains.{domain}.files {source.written} of "
                f"{self.config.path} matches is this shard; was its file moved or deleted? ({_WAY_OUT}){hint}"
            )
        return shards[name]

    def require_files(self, shards: Iterable[Shard]) -> None:
        """Raise ValueError naming each domain of which `shards`, as just listed, has none, and what is there instead.

        Domains that may be empty may be.
        """
        found = {shard.domain for shard in shards}
        empty = {domain: source for domain, source in self.config.domains.items() if domain not in found}
        problems = [
            f"domains.{domain}.files: nothing matches {glob.written!r}{self._instead(glob, source)}"
            for domain, source in empty.items()
            if not source.may_be_empty
            for glob in source.files
        ]
        if problems:
            raise ValueError("\n  ".join([f"{self.config.path}: {_EMPTY}:", *problems]))

    def _instead(self, glob: Glob, source: DomainSource) -> str:
        """What there is where the glob finds nothing: the folder that it names, or the nearest one that exists."""
        folder = glob.root
        filesystem, path = filesystem_for(join(folder, glob.patterns[0]), self.storage_options)
        if len(glob.patterns) == 1 and filesystem.get_file_info(path).type == pa.fs.FileType.Directory:
            return f", which is a folder; name its files, as in '{glob.written}/*.{source.format}'"
        _, path = filesystem_for(folder, self.storage_options)
        while filesystem.get_file_info(path).type != pa.fs.FileType.Directory:
            if path == (path := os.path.dirname(path)) or not path:
                return ""
        inside = sorted(os.path.basename(info.path) for info in filesystem.get_file_info(pa.fs.FileSelector(path)))
        more = f", and {len(inside) - _NAMED:,} more" if len(inside) > _NAMED else ""
        return f"; {printable(path)} exists and holds {printable(', '.join(inside[:_NAMED])) or 'nothing'}{more}"

    def _candidates(
        self, key: str, indexed_from: Callable[[str], str | None] | None
    ) -> Iterator[list[tuple[Glob, list[str]]]]:
        """Paths below the domain's roots that may be the shard's file, likely ones first; not yet compared with it."""
        domain, _, name = key.partition(".")
        source = self.config.domains[domain]
        own = [name, f"{name}.{source.format}"]
        if _MAY_BE_A_SLUG.fullmatch(name):
            if listed := self._listings.get(domain, {}).get(name):
                glob, path = listed
                yield [(glob, own if path in own else [path])]
            known = (indexed_from and indexed_from(key)) or ""
            below = [(glob, known.removeprefix(join(glob.root, ""))) for glob in source.files]
            yield [(glob, own if path in own else [path]) for glob, path in below if path != known]
        yield [(glob, own) for glob in source.files]

    def _listed(self, domain: str) -> dict[str, LandedShard]:
        source = self.config.domains[domain]
        files = [
            (glob, file)
            for glob in source.files
            for pattern in glob.patterns
            for file in found_files(glob.root, pattern, storage_options=self.storage_options)
        ]
        landed = _by_name(domain, source, files)
        self._listings[domain] = {_name(file.path, source): (glob, file.path) for glob, file in reversed(files)}
        return landed


def _matches(path: str, glob: Glob) -> bool:
    return any(matches(path, pattern) for pattern in glob.patterns)


def _name(path: str, source: DomainSource) -> str:
    return shard_name(path, format=source.format)


def _by_name(domain: str, source: DomainSource, files: list[tuple[Glob, FoundFile]]) -> dict[str, LandedShard]:
    """The shards of these files, by name; a file that several globs find is the one of the first."""
    shards: dict[str, LandedShard] = {}
    seen: set[str] = set()
    for glob, file in files:
        name, uri = _name(file.path, source), join(glob.root, file.path)
        if uri in seen:
            continue
        seen.add(uri)
        if name in shards:
            raise ValueError(
                f"domains.{domain}.files: {source.written} matches two files that would both be shard "
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
