"""The sample model and the sample corpus's texts, for benchmarks on real documents."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from attninf_assets.corpus.config import load_corpus_config
from attninf_assets.corpus.discovery import Corpus
from attninf_assets.corpus.documents import Document
from attninf_assets.corpus.readers import read_shard
from attninf_assets.sample.corpus import gather_sample_corpus
from attninf_assets.sample.model import fetch_sample_model
from attninf_assets.selector.pinning import pin_model

_DIRECTORY = Path(".sample")


def sample_model_directory() -> Path:
    """The sample model as a Hugging Face directory; converted once."""
    pinned = _DIRECTORY / "pinned"
    if not (pinned / "config.json").exists():
        with tempfile.TemporaryDirectory(dir=fetch_sample_model(_DIRECTORY / "model").parent) as scratch:
            converted = Path(scratch) / "pinned"
            pin_model(str(fetch_sample_model(_DIRECTORY / "model")), converted)
            converted.rename(pinned)
    return pinned


def sample_documents() -> Iterator[str]:
    """Texts of the sample corpus as they are read, shard by shard."""
    for shard in Corpus(load_corpus_config(gather_sample_corpus(_DIRECTORY / "corpus"))).shards():
        yield from (row.text for row in read_shard(shard) if isinstance(row, Document))


def sample_texts() -> list[str]:
    """Texts of the sample corpus, domains and shards mixed evenly."""
    shards = Corpus(load_corpus_config(gather_sample_corpus(_DIRECTORY / "corpus"))).shards()
    columns = [[row.text for row in read_shard(shard) if isinstance(row, Document)] for shard in shards]
    return [column[n] for n in range(max(map(len, columns))) for column in columns if n < len(column)]
