"""The training corpus that is there, compared with its manifest: in full for the check, cheaply before it is reused."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from attninf_assets.mixture.corpus_files import CorpusFiles, sha256_of
from attninf_assets.mixture.manifest import MANIFEST, CorpusFile, Manifest, MixSettings
from attninf_assets.store.damage import Damage
from attninf_assets.store.root import Root

__all__ = ["Findings", "damaged_corpus_files", "reusable_manifest", "verify_training_corpus"]

_LOG = logging.getLogger(__name__)
_LOGGED = 20  # faults at most


@dataclass(frozen=True)
class Findings:
    """How the training corpus differs from its manifest."""

    faults: list[str]  # damage: what readers of the manifest would not find as it says
    leftovers: list[str]  # what the manifest does not name: of a killed run, or of one at work


def verify_training_corpus(root: Root) -> Findings:
    """Every way in which the training corpus, read as a whole, differs from its manifest.

    If another manifest takes its place meanwhile, it is that one with which the files are compared.
    """
    manifest = _manifest_or_fault(root)
    while isinstance(manifest, Manifest):
        findings = _compared(root, manifest)
        now = _manifest_or_fault(root)
        if now == manifest or not findings.faults:
            return findings
        manifest = now
    return Findings([manifest], [])


def damaged_corpus_files(root: Root, *, thorough: bool) -> Iterator[Damage]:
    """The files that the manifest names and that are not what it says, or the manifest itself.

    Every size is compared in one listing; `thorough` reads every file.
    """
    try:
        manifest = Manifest.read(root)
    except FileNotFoundError:
        return  # nothing was mixed yet
    except ValueError as error:
        yield Damage(MANIFEST, str(error))
        return
    sizes = CorpusFiles.listed(root).sizes
    faults: dict[str, str | None] = {}
    for file in manifest.files:
        try:
            faults[file.path] = _fault_of_size(file, sizes) or (_fault_of_content(root, file) if thorough else None)
        except FileNotFoundError:
            faults[file.path] = f"{file.path}: missing"
    if any(faults.values()) and _manifest_or_fault(root) == manifest:  # else another mix has taken its place
        for path, fault in faults.items():
            if fault:
                yield Damage(path, fault.removeprefix(f"{path}: "))


def reusable_manifest(
    root: Root, settings: MixSettings, provenance: Mapping[str, Any], *, thorough: bool
) -> Manifest | None:
    """The manifest of the training corpus that is there, if it was mixed with these settings from the same and is
    undamaged; else None.

    Every file's size is compared with the manifest's in one listing. `thorough` reads every file back, as
    `verify_training_corpus` does: nothing less finds bytes that changed and a size that did not. Damage is logged as
    a warning.
    """
    manifest = _manifest_or_fault(root)
    if isinstance(manifest, Manifest):
        if not manifest.is_of(settings, provenance):
            return None
        sizes = CorpusFiles.listed(root).sizes
        faults = [fault for file in manifest.files if (fault := _fault_of_size(file, sizes))]
        if thorough and not faults:
            faults = verify_training_corpus(root).faults
        if not faults:
            return manifest
    else:
        faults = [manifest] if root.exists(MANIFEST) else []
    for fault in faults[:_LOGGED]:
        _LOG.warning("training corpus, to be written again: %s", fault)
    return None


def _manifest_or_fault(root: Root) -> Manifest | str:
    try:
        return Manifest.read(root)
    except FileNotFoundError:
        return f"{MANIFEST}: missing"
    except ValueError as error:
        return str(error)


def _compared(root: Root, manifest: Manifest) -> Findings:
    found = CorpusFiles.listed(root)
    faults: list[str] = []
    rows: Counter[tuple[str, str]] = Counter()
    unread = False
    for file in manifest.files:
        try:
            fault = _fault_of_size(file, found.sizes) or _fault_of_content(root, file)
            in_file = Counter() if fault else Counter(_origins(root, file.path))
        except FileNotFoundError:
            fault = f"{file.path}: missing"
        if fault:
            faults.append(fault)
            unread = True
        else:
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
    return Findings(faults, found.leftovers(manifest))


def _fault_of_size(file: CorpusFile, sizes: Mapping[str, int]) -> str | None:
    size = sizes.get(file.path)
    if size is None:
        return f"{file.path}: missing"
    return None if size == file.bytes else f"{file.path}: {size} bytes, the manifest says {file.bytes}"


def _fault_of_content(root: Root, file: CorpusFile) -> str | None:
    sha256, _ = sha256_of(root, file.path)
    return None if sha256 == file.sha256 else f"{file.path}: sha256 {sha256}, the manifest says {file.sha256}"


def _origins(root: Root, path: str) -> Iterator[tuple[str, str]]:
    """The (domain, source) of every row."""
    fs, full_path = root.locate(path)
    with fs.open_input_file(full_path) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(columns=["domain", "source"]):
            yield from zip(batch["domain"].to_pylist(), batch["source"].to_pylist(), strict=True)
