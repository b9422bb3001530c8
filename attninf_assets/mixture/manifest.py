"""What the training corpus consists of: its files, what they hold, and what they were made from."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attninf_assets.store.root import Root

__all__ = [
    "CORPUS_COLUMNS",
    "CORPUS_DIRECTORY",
    "CORPUS_SCHEMA",
    "CorpusFile",
    "Manifest",
    "Share",
    "sha256_of",
    "verify_training_corpus",
]

CORPUS_DIRECTORY = "training_corpus"
CORPUS_COLUMNS = {
    "doc_id": "identifier, unique within the domain",
    "domain": "kind of source",
    "text": "the whole text, as it landed",
    "source": "corpus: a copy that every document has; selected: a further copy of a selected document",
}
# Without the meanings: Parquet writers store field metadata, and the same mix is the same bytes.
CORPUS_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in CORPUS_COLUMNS])

_MANIFEST = f"{CORPUS_DIRECTORY}/manifest.json"
_READ_BYTES = 8 << 20


@dataclass(frozen=True)
class CorpusFile:
    """One Parquet file of the training corpus."""

    path: str  # relative to the storage root
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Share:
    """What a domain contributes to the training corpus from one source, `corpus` or `selected`."""

    domain: str
    source: str
    documents: int  # distinct
    rows: int  # documents times their copies
    tokens: int  # of the rows whose token count is known
    rows_without_token_count: int


@dataclass(frozen=True)
class Manifest:
    """The training corpus in full. Readers take the files named here, and no others."""

    files: tuple[CorpusFile, ...]  # in the order of the shuffle
    shares: tuple[Share, ...]  # by domain and source
    corpus_weight: float
    selected_weight: float
    seed: int
    rows_per_file: int
    provenance: Mapping[str, Any]  # the caller's: selector_fingerprint, fraction, budget, table versions

    @property
    def content_digest(self) -> str:
        """sha256 over the files' own, in order: the same for the same bytes."""
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()

    def write(self, root: Root) -> None:
        """Make this the manifest of the training corpus, atomically."""
        root.write_bytes(_MANIFEST, (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode())

    @classmethod
    def read(cls, root: Root) -> "Manifest":
        """The training corpus's manifest; FileNotFoundError if none was ever completed."""
        fields = json.loads(root.read_bytes(_MANIFEST))
        fields["files"] = tuple(CorpusFile(**file) for file in fields["files"])
        fields["shares"] = tuple(Share(**share) for share in fields["shares"])
        return cls(**fields)


def verify_training_corpus(root: Root) -> list[str]:
    """Every way in which the training corpus, read as a whole, differs from its manifest; none if all is well."""
    if not root.exists(_MANIFEST):
        return [f"{_MANIFEST}: missing"]
    manifest = Manifest.read(root)
    named = {file.path for file in manifest.files}
    found = {path for path in root.list(CORPUS_DIRECTORY) if path.endswith(".parquet")}
    faults = [f"{path}: not in the manifest" for path in sorted(found - named)]
    rows: Counter[tuple[str, str]] = Counter()
    unread = False
    for file in manifest.files:
        fault = f"{file.path}: missing" if file.path not in found else _fault_of(root, file)
        if fault:
            faults.append(fault)
            unread = True
        else:
            in_file = Counter(_origins(root, file.path))
            rows.update(in_file)
            if in_file.total() != file.rows:
                faults.append(f"{file.path}: {in_file.total()} rows, the manifest says {file.rows}")
    expected = Counter({(share.domain, share.source): share.rows for share in manifest.shares})
    if not unread:  # else the totals cannot be known
        faults += [
            f"domain {domain}, source {source}: {rows[domain, source]} rows, "
            f"the manifest says {expected[domain, source]}"
            for domain, source in sorted(rows.keys() | expected.keys())
            if rows[domain, source] != expected[domain, source]
        ]
    return faults


def sha256_of(root: Root, path: str) -> tuple[str, int]:
    """Hex sha256 of a file under the root, and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    fs, full_path = root.locate(path)
    with fs.open_input_stream(full_path) as stream:
        while piece := stream.read(_READ_BYTES):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def _fault_of(root: Root, file: CorpusFile) -> str | None:
    sha256, size = sha256_of(root, file.path)
    if size != file.bytes:
        return f"{file.path}: {size} bytes, the manifest says {file.bytes}"
    if sha256 != file.sha256:
        return f"{file.path}: sha256 {sha256}, the manifest says {file.sha256}"
    return None


def _origins(root: Root, path: str) -> Iterator[tuple[str, str]]:
    """The (domain, source) of every row."""
    fs, full_path = root.locate(path)
    with fs.open_input_file(full_path) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(columns=["domain", "source"]):
            yield from zip(batch["domain"].to_pylist(), batch["source"].to_pylist(), strict=True)
