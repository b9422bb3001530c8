"""The files that lie in `training_corpus/`: those that its manifest names, and leftovers of killed runs."""

import hashlib
from dataclasses import dataclass

import pyarrow.fs as pafs

from attninf_assets.mixture.manifest import CORPUS_DIRECTORY, Manifest
from attninf_assets.store.root import Root

__all__ = ["STAGING", "CorpusFiles", "remove_leftovers", "sha256_of"]

STAGING = f"{CORPUS_DIRECTORY}/_staging-"  # what the directories begin with in which a run writes its files
_READ_BYTES = 8 << 20


@dataclass(frozen=True)
class CorpusFiles:
    """What lies in `training_corpus/`, as one listing of it says."""

    sizes: dict[str, int]  # bytes of each Parquet file that has its name, by its path from the root
    staging: tuple[str, ...]  # directories of runs at work, or killed

    @classmethod
    def listed(cls, root: Root) -> "CorpusFiles":
        """The files that are there now."""
        fs, path = root.locate(CORPUS_DIRECTORY)
        base = path.removesuffix(CORPUS_DIRECTORY)
        found = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
        sizes: dict[str, int] = {}
        staging: set[str] = set()
        for entry in found:
            name = entry.path.removeprefix(base)
            if name.startswith(STAGING):
                staging.add("/".join(name.split("/")[:2]))
            elif entry.type == pafs.FileType.File and name.endswith(".parquet"):
                sizes[name] = entry.size
        return cls(sizes, tuple(sorted(staging)))

    def leftovers(self, manifest: Manifest) -> list[str]:
        """What a run left that was killed before its end, or has there while it is at work: Parquet files that the
        manifest does not name, which no reader of it reads, and staging directories."""
        return [*sorted(self.sizes.keys() - {file.path for file in manifest.files}), *self.staging]


def remove_leftovers(root: Root, manifest: Manifest) -> tuple[CorpusFiles, int]:
    """Delete what the manifest does not name; return what lay there before, and how much was deleted.

    Only a run that may write the training corpus may do so: to others, the files of a run at work look the same.
    """
    found = CorpusFiles.listed(root)
    leftovers = found.leftovers(manifest)
    for path in leftovers:
        root.delete(path)
    return found, len(leftovers)


def sha256_of(root: Root, path: str) -> tuple[str, int]:
    """Hex sha256 of a file under the root, and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    fs, full_path = root.locate(path)
    with fs.open_input_stream(full_path) as stream:
        while piece := stream.read(_READ_BYTES):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size
