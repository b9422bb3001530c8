"""Shards and their names, documents, and refused rows, as plain data."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

from attninf_assets.corpus.printable import printable

NAME = re.compile(r"[a-z0-9_-]+")
LONGEST_NAME = 200  # a name becomes a folder of the Delta tables, and a folder's name ends at 255 bytes


class BadFileError(ValueError):
    """A source file that cannot be read, or is not what it was when it was indexed. The message names it, and the row
    where it is one row's fault."""

    def __init__(self, message: str, *, uri: str, row: int | None = None) -> None:
        super().__init__(message)
        self.uri, self.row = uri, row


@dataclass(frozen=True)
class Shard:
    """A source file of a domain, and how to read it: the unit of work."""

    domain: str
    name: str
    uri: str  # absolute local path, s3://…, or hf://…
    format: str  # parquet, jsonl, jsonl.zst or jsonl.gz
    text_column: str
    id_column: str | None  # None: ids are made from the shard's name and the row

    @property
    def key(self) -> str:
        """The Dagster partition key, `<domain>.<shard>`."""
        return f"{self.domain}.{self.name}"

    @property
    def shown(self) -> str:
        """The file's place as it can be shown."""
        return printable(self.uri)


@dataclass(frozen=True)
class LandedShard:
    """A shard with the size and modification time of its file, as listed."""

    shard: Shard
    n_bytes: int
    modified_ns: int  # since 1970; 0 where the storage does not say

    @property
    def version(self) -> str:
        """A mark of the file as it is: it changes when the file is replaced by one of another size or time."""
        return file_version(self.n_bytes, self.modified_ns)


@dataclass(frozen=True)
class Document:
    """A document with its text and where it came from. `doc_id` is unique within its domain."""

    doc_id: str
    domain: str
    shard: str
    source_uri: str
    source_row: int  # 0-based row of the Parquet file, or line of the JSONL file
    text: str

    @cached_property
    def utf8(self) -> bytes:
        """The text's UTF-8 bytes."""
        return self.text.encode()

    @cached_property
    def text_sha256(self) -> str:
        """Hex sha256 of the text's UTF-8 bytes; decides whether a score is for this very text."""
        return hashlib.sha256(self.utf8).hexdigest()

    @cached_property
    def n_bytes(self) -> int:
        """Length of the text in UTF-8 bytes."""
        return len(self.utf8)


@dataclass(frozen=True)
class Refusal:
    """A row that cannot be a document, the reason, and by what it may be known again."""

    domain: str
    shard: str
    source_uri: str
    source_row: int
    reason: str
    doc_id: str | None = None  # where the row has a valid one
    excerpt: str | None = None  # how its text or line begins, fit to be shown


def file_version(n_bytes: int, modified_ns: int) -> str:
    """A mark of a file of that size and time."""
    return f"{n_bytes}-{modified_ns}"


def shard_name(path: str, *, format: str) -> str:
    """The name of a shard, made from its file's path below the glob's fixed prefix; never depends on other files.

    The path without the format's extension if that is a name already, else a slug of it and 8 hex digits of the path's
    sha256, so that two paths with one slug keep two names.
    """
    stem = path.removesuffix(f".{format}")
    if NAME.fullmatch(stem) and len(stem) <= LONGEST_NAME:
        return stem
    slug = re.sub(r"[^a-z0-9_]+", "-", stem.lower())[: LONGEST_NAME - 9].strip("-") or "shard"
    return f"{slug}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
