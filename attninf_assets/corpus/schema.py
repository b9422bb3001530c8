"""A document, a shard of documents, and a document that had to be refused."""

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Shard:
    """One source file of a domain, and how to read it: the unit of work."""

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


@dataclass(frozen=True)
class Document:
    """A document as it landed. `doc_id` is unique within its domain."""

    doc_id: str
    domain: str
    shard: str
    source_uri: str
    source_row: int  # 0-based row of the Parquet file, or line of the JSONL file
    text: str

    @cached_property
    def text_sha256(self) -> str:
        """Hex sha256 of the text's UTF-8 bytes; decides whether a score is for this very text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def n_bytes(self) -> int:
        """Length of the text in UTF-8 bytes."""
        return len(self.text.encode())


@dataclass(frozen=True)
class Refusal:
    """A row that cannot be a document, and why."""

    domain: str
    shard: str
    source_uri: str
    source_row: int
    reason: str
