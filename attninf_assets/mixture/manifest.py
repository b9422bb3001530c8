"""What the training corpus consists of: its files, what they hold, and what they were made from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import ConfigDict

from attninf_assets.store.json_records import read_record, sealed
from attninf_assets.store.root import Root

__all__ = [
    "CORPUS_COLUMNS",
    "CORPUS_DIRECTORY",
    "CORPUS_SCHEMA",
    "MANIFEST",
    "CorpusFile",
    "Manifest",
    "MixSettings",
    "Share",
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

MANIFEST = f"{CORPUS_DIRECTORY}/manifest.json"


@dataclass(frozen=True)
class MixSettings:
    """What is chosen about a mix; see `write_training_corpus`."""

    seed: int
    corpus_weight: float
    selected_weight: float
    rows_per_file: int


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

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

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
        root.write_bytes(MANIFEST, sealed(json.dumps(asdict(self), indent=2, sort_keys=True)))

    @classmethod
    def read(cls, root: Root) -> "Manifest":
        """The training corpus's manifest. Raises FileNotFoundError if none was ever completed, and `ValueError` naming
        the file and the fault if it is damaged."""
        return read_record(root, MANIFEST, cls, made_by="training_corpus")

    def is_of(self, settings: MixSettings, provenance: Mapping[str, Any]) -> bool:
        """Whether the corpus was mixed with these settings from what that provenance says."""
        same = all(getattr(self, name) == value for name, value in asdict(settings).items())
        return same and self.provenance == provenance
