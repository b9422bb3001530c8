"""The sample corpus, small and real: made of text that every installation already has; nothing is shipped."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
import zstandard

from attninf_assets.sample.texts import math_docstrings, package_readmes, reference_prose, stdlib_code
from attninf_assets.store.scratch import held_directory

__all__ = ["gather_sample_corpus"]

_SHARDS_PER_DOMAIN = 3
# Documents a domain takes from each range of lengths (characters, upper end excluded), for natural variety.
_QUOTAS = {(250, 500): 11, (500, 900): 12, (900, 1500): 8, (1500, 2500): 2}


def gather_sample_corpus(directory: str | os.PathLike[str]) -> Path:
    """Write the sample corpus into `directory` and return its corpus file, `directory/corpus.yaml`.

    Four domains of three shards, two as Parquet and two as JSONL.zst. The directory appears all at once or not at all;
    if it is there already, nothing is done. Raises ValueError if it is there and is something else.
    """
    directory = Path(directory).absolute()
    corpus_file = directory / "corpus.yaml"
    if corpus_file.exists():
        return corpus_file
    if directory.exists() and any(directory.iterdir()):
        raise ValueError(f"{directory}: is not empty and not a sample corpus (it has no corpus.yaml)")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with held_directory(directory.parent, f".{directory.name}-") as temporary:
        built = temporary / "corpus"
        _write_corpus(built)
        try:
            built.rename(directory)
        except OSError:
            if not corpus_file.exists():  # otherwise another process was faster, with the same files
                raise
    return corpus_file


def _write_corpus(directory: Path) -> None:
    domains: dict[str, tuple[Callable[[], Iterator[tuple[str, str]]], str]] = {
        "stdlib_code": (stdlib_code, "parquet"),
        "reference_prose": (reference_prose, "jsonl.zst"),
        "math_docstrings": (math_docstrings, "parquet"),
        "package_readmes": (package_readmes, "jsonl.zst"),
    }
    for domain, (candidates, format_) in domains.items():
        documents = _chosen(candidates(), domain=domain)
        (directory / domain).mkdir(parents=True)
        for i in range(_SHARDS_PER_DOMAIN):
            _WRITERS[format_](directory / domain / f"part-{i}.{format_}", documents[i::_SHARDS_PER_DOMAIN])
    entries = {
        domain: {"files": f"{domain}/*.{format_}", "format": format_, "id_column": "id"}
        for domain, (_, format_) in domains.items()
    }
    (directory / "corpus.yaml").write_text(yaml.safe_dump({"domains": entries}, sort_keys=False))


def _write_parquet(path: Path, documents: list[tuple[str, str]]) -> None:
    ids, texts = zip(*documents, strict=True)
    pq.write_table(pa.table({"id": ids, "text": texts}), path)


def _write_jsonl_zst(path: Path, documents: list[tuple[str, str]]) -> None:
    lines = (json.dumps({"id": doc_id, "text": text}, ensure_ascii=False) + "\n" for doc_id, text in documents)
    path.write_bytes(zstandard.compress("".join(lines).encode()))


_WRITERS = {"parquet": _write_parquet, "jsonl.zst": _write_jsonl_zst}


def _chosen(candidates: Iterable[tuple[str, str]], *, domain: str) -> list[tuple[str, str]]:
    """The domain's documents: for each range of lengths its quota, in an order that only the ids decide."""
    open_quotas = dict(_QUOTAS)
    chosen: dict[str, str] = {}
    texts: set[str] = set()
    for doc_id, text in sorted(candidates, key=lambda candidate: hashlib.sha256(candidate[0].encode()).digest()):
        range_ = next((range_ for range_ in _QUOTAS if range_[0] <= len(text) < range_[1]), None)
        if range_ is None or not open_quotas[range_] or doc_id in chosen or text in texts:
            continue
        open_quotas[range_] -= 1
        chosen[doc_id] = text
        texts.add(text)
    if any(open_quotas.values()):
        raise RuntimeError(
            f"{domain}: this Python installation holds too little text: {open_quotas} documents are missing"
        )
    return list(chosen.items())
