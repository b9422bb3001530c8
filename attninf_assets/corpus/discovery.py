"""Which shards a corpus has: the files that the globs of the corpus file match now."""

import difflib

from attninf_assets.corpus.config import CorpusConfig, DomainSource
from attninf_assets.corpus.documents import LandedShard, Shard, shard_name
from attninf_assets.store.filesystems import NO_OPTIONS, FoundFile, StorageOptions, found_files, join

_WAY_OUT = "if it is gone for good, run the job retire_shards"


def discover_shards(config: CorpusConfig, *, storage_options: StorageOptions = NO_OPTIONS) -> list[Shard]:
    """Every source file of every domain, sorted by key; a domain whose glob matches nothing contributes none.

    Raises ValueError if two files of a domain would have one name.
    """
    return [landed.shard for landed in landed_shards(config, storage_options=storage_options)]


def landed_shards(config: CorpusConfig, *, storage_options: StorageOptions = NO_OPTIONS) -> list[LandedShard]:
    """`discover_shards`, each with its file's size and time as listed now."""
    landed = [shard for source in config.domains for shard in _shards(source, storage_options=storage_options)]
    return sorted(landed, key=lambda landed: landed.shard.key)


def domains_without_shards(config: CorpusConfig, shards: list[Shard]) -> list[DomainSource]:
    """The domains whose glob matched nothing when `shards` were discovered."""
    found = {shard.domain for shard in shards}
    return [source for source in config.domains if source.domain not in found]


def find_shard(config: CorpusConfig, key: str, *, storage_options: StorageOptions = NO_OPTIONS) -> Shard:
    """The shard with this key (`<domain>.<shard>`). Raises ValueError if there is none, naming what comes near."""
    return find_landed_shard(config, key, storage_options=storage_options).shard


def find_landed_shard(config: CorpusConfig, key: str, *, storage_options: StorageOptions = NO_OPTIONS) -> LandedShard:
    """`find_shard`, with its file's size and time as listed now."""
    domain, _, name = key.partition(".")
    sources = {source.domain: source for source in config.domains}
    if domain not in sources:
        raise ValueError(
            f"{key!r}: {config.path} has no domain {domain!r}; it has {', '.join(sorted(sources))}; {_WAY_OUT}"
        )
    source = sources[domain]
    shards = {landed.shard.name: landed for landed in _shards(source, storage_options=storage_options)}
    if name not in shards:
        near = [f"{domain}.{other}" for other in difflib.get_close_matches(name, sorted(shards), n=3)]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ValueError(
            f"{key!r}: none of the {len(shards)} files that domains.{domain}.files {source.files!r} of {config.path} "
            f"matches is this shard; was its file moved or deleted? ({_WAY_OUT}){hint}"
        )
    return shards[name]


def _shards(source: DomainSource, *, storage_options: StorageOptions) -> list[LandedShard]:
    files: dict[str, FoundFile] = {}
    for file in found_files(source.root, source.pattern, storage_options=storage_options):
        name = shard_name(file.path, format=source.format)
        if name in files:
            raise ValueError(
                f"domains.{source.domain}.files: {source.files!r} matches two files that would both be shard {name!r}: "
                f"{join(source.root, files[name].path)} and {join(source.root, file.path)}; rename one"
            )
        files[name] = file
    return [
        LandedShard(
            Shard(
                domain=source.domain,
                name=name,
                uri=join(source.root, file.path),
                format=source.format,
                text_column=source.text_column,
                id_column=source.id_column,
            ),
            n_bytes=file.n_bytes,
            modified_ns=file.modified_ns,
        )
        for name, file in files.items()
    ]
