"""Pinned models under the root: published whole or not at all, verified, and brought to a local directory."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from attninf_assets.selector.model_directory import CONFIG, file_digests
from attninf_assets.selector.verified_pins import DamagedPinError, require_intact
from attninf_assets.store.fsync import sync_directories, sync_file
from attninf_assets.store.json_records import sealed, unsealed
from attninf_assets.store.root import Root
from attninf_assets.store.scratch import UNFINISHED, held_directory

_CHUNK = 1 << 22
_FORM = 2  # of what is pinned: canonical files; before, files were pinned as they came, and their list named no form


def publish_directory(root: Root, local: Path, relative: str) -> None:
    """Copy the files of the pinned model `local` to `relative` under the root; what is damaged there is replaced.

    `config.json` comes last, so its presence means that the directory is complete. A file is replaced in one step,
    so readers see the damaged one or the right one. The files' sha256 go to a list of their own, see `pinned_files`.
    """
    sha256_of = file_digests(local)
    if root.is_local and not root.exists(f"{relative}/{CONFIG}"):
        target = Path(root.uri) / relative
        with held_directory(target.parent, UNFINISHED) as staged:
            for name in sha256_of:
                shutil.copyfile(local / name, staged / name)
                sync_file(staged / name)
            _install(staged, target)
        sync_directories([target], top=Path(root.uri))
    else:
        for name in sorted(sha256_of, key=lambda name: (name == CONFIG, name)):
            if stored_sha256(root, f"{relative}/{name}") != sha256_of[name]:
                _replace(root, local / name, f"{relative}/{name}")
        for path in root.list(relative):
            if path.removeprefix(f"{relative}/") not in sha256_of:
                root.delete(path)
    list_pinned(root, relative, sha256_of)


def is_intact(root: Root, relative: str) -> bool:
    """Whether every file of a pinned model is there as it was pinned; False where it is not known what was pinned."""
    pinned = pinned_files(root, relative)
    return pinned is not None and all(
        stored_sha256(root, f"{relative}/{name}") == sha256 for name, sha256 in pinned.items()
    )


def pinned_files(root: Root, relative: str) -> dict[str, str] | None:
    """sha256 of the files as they were pinned, by name. None where there is no list of them, or none of this form: an
    earlier release pinned them, or the list itself is damaged; pinning again writes it."""
    stored = _list(root, relative)
    files = stored.get("files") if stored.get("form") == _FORM else None
    return files if isinstance(files, dict) else None


def _list(root: Root, relative: str) -> dict[str, Any]:
    if not root.exists(list_of(relative)):
        return {}
    try:
        stored = json.loads(unsealed(root.read_bytes(list_of(relative))))
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}


def list_pinned(root: Root, relative: str, sha256_of: Mapping[str, str]) -> None:
    """Put down the sha256 of a pinned model's files."""
    root.write_bytes(list_of(relative), sealed(json.dumps({"form": _FORM, "files": dict(sha256_of)}, sort_keys=True)))


def local_directory(root: Root, relative: str, *, cache: Path) -> Path:
    """A local directory with the files of `relative`: the place itself under a local root, else a copy under `cache`.

    Its last part is the digest that the model was pinned under, and the files are compared with it, see
    `require_intact`; a copy that is damaged is made again. Raises `ValueError` naming the place where nothing complete
    is there, and the file and both digests where it is damaged.
    """
    where = f"{root.uri}/{relative}"
    if not root.exists(f"{relative}/{CONFIG}"):
        raise ValueError(f"{where}: no pinned model there; materialize selector_model")
    if (stored := _list(root, relative)) and stored.get("form") != _FORM:
        raise ValueError(
            f"{where}: pinned by an earlier release, whose models are known by other digests; materialize "
            "selector_model, retrieval_probes and retrieval_heads, in this order, and the scores are made anew"
        )

    def verify(directory: Path) -> None:
        require_intact(
            directory,
            digest=relative.rpartition("/")[2],
            where=where,
            pinned_files=pinned_files(root, relative),
            memory=cache / "verified",
        )

    if root.is_local:
        verify(Path(root.uri) / relative)
        return Path(root.uri) / relative
    target = cache / relative
    if target.exists():
        try:
            verify(target)
        except DamagedPinError:
            _fetch(root, relative, target)
    else:
        _fetch(root, relative, target)
    verify(target)
    return target


def _fetch(root: Root, relative: str, target: Path) -> None:
    with held_directory(target.parent, UNFINISHED) as copy:
        remote, path = root.locate(relative)
        pafs.copy_files(path, str(copy), source_filesystem=remote, destination_filesystem=pafs.LocalFileSystem())
        _install(copy, target)


def _install(copy: Path, target: Path) -> None:
    """Move the directory `copy` to `target`: in one step, or file by file into what another process has put there or
    damage has left. Both processes' files are the same: the directory's name is their digest."""
    try:
        os.rename(copy, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        names = {file.name for file in copy.iterdir()}
        for name in sorted(names, key=lambda name: (name == CONFIG, name)):
            os.replace(copy / name, target / name)
        for file in target.iterdir():
            if file.name not in names:
                file.unlink(missing_ok=True)
        copy.rmdir()


def _replace(root: Root, file: Path, relative: str) -> None:
    destination, path = root.locate(relative)
    if root.is_local:
        staged = Path(path).parent.parent / f".{file.name}.{uuid.uuid4().hex}.tmp"
        shutil.copyfile(file, staged)
        sync_file(staged)
        os.replace(staged, path)
    else:
        pafs.copy_files(str(file), path, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=destination)


def stored_sha256(root: Root, relative: str) -> str | None:
    """sha256 of a file under the root, read as a stream; None where there is none."""
    filesystem, path = root.locate(relative)
    digest = hashlib.sha256()
    try:
        with filesystem.open_input_stream(path) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def list_of(relative: str) -> str:
    """Where the sha256 of a pinned model's files are put down, below the root."""
    directory, _, digest = relative.rpartition("/")
    return f"{directory}/files/{digest}.json"
