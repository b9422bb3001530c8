"""What it costs a backfill to find its shards: corpus files parsed, listings, requests, seconds.

    python -m benchmarks.bench_listing --shards 5000
    python -m benchmarks.bench_listing --shards 500 --on s3

Each run of `--per-run` shards opens the corpus file and finds its shards: first when none is indexed, then when each is
in the table `documents`; nothing else is done. Flat: `00000.parquet`, whose shard is named as it is. Nested: folders
such as `CC-MAIN-2024-10/000_00000.parquet`, whose shards' names are slugs. Entries are the files listings go through.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from unittest import mock

import pyarrow as pa
from dagster_aws.s3 import S3Resource

from attninf_assets.corpus import discovery
from attninf_assets.corpus.config import load_corpus_config
from attninf_assets.corpus.discovery import Corpus
from attninf_assets.corpus.stored_index import indexed_from
from attninf_assets.orchestration.connections import resources
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.store.filesystems import NO_OPTIONS, FoundFile, StorageOptions, filesystem_for
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from benchmarks.rigs.s3 import s3_server

_SHARDS_PER_CRAWL = 250


@dataclass
class Cost:
    """What finding shards took."""

    parses: int = 0
    listings: int = 0
    entries: int = 0
    lookups: int = 0  # of single paths

    def __str__(self) -> str:
        return "  ".join(f"{getattr(self, field.name):>10,} {field.name}" for field in fields(self))


def main() -> None:
    """Print a line for each layout, before and after the shards are indexed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=5_000)
    parser.add_argument("--per-run", type=int, default=4)
    parser.add_argument("--runs", type=int, help="only so many runs of the backfill; default: all")
    parser.add_argument("--on", choices=("local", "s3"), default="local")
    arguments = parser.parse_args()
    server = s3_server() if arguments.on == "s3" else nullcontext(NO_OPTIONS)
    with server as options, tempfile.TemporaryDirectory(prefix="attninf-bench-") as folder:
        os.environ |= options  # as a user would give them
        for layout, path_of, pattern in (("flat", _flat, "*.parquet"), ("nested", _nested, "CC-MAIN-*/*.parquet")):
            where = f"s3://lake/{layout}" if arguments.on == "s3" else f"{folder}/{layout}"
            corpus_file = Path(folder, f"{layout}.yaml")
            corpus_file.write_text(f"domains: {{web: {{files: '{where}/{pattern}', format: parquet}}}}\n")
            _land(where, [path_of(number) for number in range(arguments.shards)], options)
            _measure(corpus_file, Root.at(f"{where}-root", options), options, layout, arguments)


def _flat(number: int) -> str:
    return f"{number:05}.parquet"


def _nested(number: int) -> str:
    return f"CC-MAIN-2024-{number // _SHARDS_PER_CRAWL:02}/000_{number % _SHARDS_PER_CRAWL:05}.parquet"


def _land(where: str, paths: Sequence[str], options: StorageOptions) -> None:
    filesystem, root = filesystem_for(where, options)
    for path in paths:
        filesystem.create_dir(f"{root}/{path}".rpartition("/")[0], recursive=True)
        with filesystem.open_output_stream(f"{root}/{path}") as stream:
            stream.write(b"a shard")


def _measure(
    corpus_file: Path, root: Root, options: StorageOptions, layout: str, arguments: argparse.Namespace
) -> None:
    shards = Corpus(load_corpus_config(corpus_file), storage_options=options).shards()
    lake = Lake(root)
    uris = {shard.key: shard.uri for shard in shards}
    all_keys = list(uris)
    starts = range(0, len(shards), arguments.per_run)[: arguments.runs]
    runs = [all_keys[start : start + arguments.per_run] for start in starts]
    for state in ("none indexed", "all indexed"):
        with _counted() as cost:
            begin, cpu = time.perf_counter(), time.process_time()
            found = [uri for keys in runs for uri in _run(corpus_file, lake, keys)]
            seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        assert found == [uris[key] for keys in runs for key in keys]
        print(f"{layout:<7} {state:<13} {len(runs):>5,} runs  {cost}  {seconds:>8.2f} s  {cpu:>8.2f} s CPU", flush=True)
        _index(lake, uris)


def _run(corpus_file: Path, lake: Lake, keys: Sequence[str]) -> list[str]:
    """The shards of one run, found as its asset finds them."""
    connected = LakeResource(root=lake.root.uri, s3=S3Resource())
    sources = CorpusResource(file=str(corpus_file), sample_dir="", lake=connected).open()
    return [sources.find(key, indexed_from=partial(indexed_from, lake)).shard.uri for key in keys]


def _index(lake: Lake, uris: dict[str, str]) -> None:
    """A document for each shard."""
    row = {"domain": "web", "source_row": 0, "text_sha256": "0" * 64, "n_bytes": 1}
    rows = [row | {"doc_id": key, "shard": key.partition(".")[2], "source_uri": uri} for key, uri in uris.items()]
    lake.replace("documents", pa.Table.from_pylist(rows, schema=TABLES["documents"]), where={"domain": "web"})


@contextmanager
def _counted() -> Iterator[Cost]:
    cost = Cost()

    def parse(*arguments: object, **options: object) -> object:
        cost.parses += 1
        return load_corpus_config(*arguments, **options)  # type: ignore[arg-type]

    def listing(real: Callable[..., list[FoundFile]]) -> Callable[..., list[FoundFile]]:
        def counting(*arguments: object, **options: object) -> list[FoundFile]:
            found = real(*arguments, **options)
            cost.listings += 1
            cost.entries += len(found)
            return found

        return counting

    def look_up(real: Callable[..., list[FoundFile]]) -> Callable[..., list[FoundFile]]:
        def counting(root: str, paths: Sequence[str], **options: object) -> list[FoundFile]:
            cost.lookups += len(paths)
            return real(root, paths, **options)

        return counting

    with (
        mock.patch.object(resources, "load_corpus_config", parse),
        mock.patch.object(discovery, "found_files", listing(discovery.found_files)),
        mock.patch.object(discovery, "standing_files", look_up(discovery.standing_files)),
    ):
        yield cost


if __name__ == "__main__":
    main()
