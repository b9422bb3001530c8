"""Scoring of one file's documents into one file, without lake or partitions; nothing is remembered."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attninf_assets.corpus.config import FORMATS
from attninf_assets.corpus.documents import Document, Refusal, Shard, shard_name
from attninf_assets.corpus.readers import read_shard
from attninf_assets.influence.document_score import DocumentScore
from attninf_assets.influence.selector import Selector
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.scratch import held_directory
from attninf_assets.store.uris import require_no_secret

COLUMNS = ("doc_id", "n_tokens", "loss_base", "loss_reference", "score")
OUTPUT_FORMATS = (".parquet", ".jsonl")
_SCHEMA = pa.schema([TABLES["scores"].field(name) for name in COLUMNS])
_ROWS = 10_000  # of a row group


def shard_of_file(path: str, *, text_column: str, id_column: str | None) -> Shard:
    """A shard made of the file, its format known by its suffix. `path` is local, or an s3:// or hf:// address.

    Raises `ValueError` naming the file where the suffix is none of the formats', and without naming it where there are
    credentials in the address.
    """
    require_no_secret(path)
    name = path.rpartition("/")[2]
    format = next((known for known in FORMATS if name.endswith(f".{known}")), None)
    if format is None:
        raise ValueError(f"{path}: its suffix is none of {', '.join(f'.{known}' for known in FORMATS)}")
    if id_column == text_column:
        raise ValueError(f"id column {id_column!r} is the text column")
    return Shard(
        domain="file",
        name=shard_name(name, format=format),
        uri=path if "://" in path else os.path.abspath(os.path.expanduser(path)),
        format=format,
        text_column=text_column,
        id_column=id_column,
    )


def require_output(output: Path, *, source: str, force: bool) -> None:
    """Raise `ValueError` naming the output where it cannot, or must not, be written."""
    if output.suffix not in OUTPUT_FORMATS:
        raise ValueError(f"{output}: its suffix is none of {', '.join(OUTPUT_FORMATS)}")
    require_free(output, force=force)
    require_apart(output, {"IN": source})


def require_free(output: Path, *, force: bool) -> None:
    """Raise `ValueError` where something stands at `output` that may not be replaced, or no file can stand there."""
    if output.is_dir():
        raise ValueError(f"{output}: is a folder")
    if output.exists() and not force:
        raise ValueError(f"{output}: exists; replace it with --force")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.absolute().parent}")
    if not os.access(output.absolute().parent, os.W_OK):
        raise ValueError(f"{output}: the folder {output.absolute().parent} may not be written to")


def require_apart(output: Path, others: Mapping[str, str | Path]) -> None:
    """Raise `ValueError` naming the output where it is one of the other files, given by what each of them is."""
    for what, other in others.items():
        if os.path.realpath(output) == os.path.realpath(os.path.expanduser(other)):
            raise ValueError(f"{output}: is also {what}")


@dataclass(frozen=True)
class FileContents:
    """The counts of a file's documents, their bytes, and refused rows, found by reading it once."""

    n_documents: int
    n_bytes: int  # of the documents' texts
    n_refused: int


def read_through(shard: Shard, *, on_refusal: Callable[[Refusal], None]) -> FileContents:
    """Read the whole file and count what it holds; each refused row is told to `on_refusal`.

    Raises `ValueError` as `read_shard` does.
    """
    n_documents = n_bytes = n_refused = 0
    for row in read_shard(shard):
        if isinstance(row, Document):
            n_documents += 1
            n_bytes += row.n_bytes
        else:
            n_refused += 1
            on_refusal(row)
    return FileContents(n_documents, n_bytes, n_refused)


def documents_of(shard: Shard, contents: FileContents) -> Iterator[Document]:
    """The documents, in order, read again. Raises `ValueError` where they are not those of the first reading."""
    n_documents = n_bytes = 0
    for row in read_shard(shard):
        if isinstance(row, Document):
            n_documents += 1
            n_bytes += row.n_bytes
            yield row
    if (n_documents, n_bytes) != (contents.n_documents, contents.n_bytes):
        raise ValueError(f"{shard.shown}: the file changed while it was scored")


def write_scores(scores: Iterable[DocumentScore], output: Path, *, selector: Selector) -> None:
    """Write the columns `COLUMNS` to a .parquet or .jsonl file, which appears whole or not at all.

    Parquet carries the selector's JSON and fingerprint in its schema's metadata.
    """
    with _whole(output) as temporary:
        if output.suffix == ".jsonl":
            with temporary.open("w") as lines:
                for score in scores:
                    lines.write(json.dumps(_row(score), ensure_ascii=False) + "\n")
        else:
            metadata = {"selector": selector.to_json(), "selector_fingerprint": selector.fingerprint}
            schema = _SCHEMA.with_metadata(metadata)
            with pq.ParquetWriter(temporary, schema, compression="zstd") as parquet:
                rows = map(_row, scores)
                while group := list(islice(rows, _ROWS)):
                    parquet.write_table(pa.Table.from_pylist(group, schema=schema))


def write_text(text: str, output: Path) -> None:
    """Write a text file, which appears whole or not at all."""
    with _whole(output) as temporary:
        temporary.write_text(text)


def _row(score: DocumentScore) -> dict[str, object]:
    return {name: getattr(score, name) for name in COLUMNS}


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A name to write to; what is there at the end takes the output's place, after an error nothing.

    It is in a directory beside the output, which the next to write that output deletes where this one was killed.
    """
    with held_directory(output.parent, f".{output.name}.unfinished-") as directory:
        temporary = directory / output.name
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, output)
