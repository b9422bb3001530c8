"""Pinned models under the root: published whole or not at all, and brought to a local directory to be loaded."""

import os
import shutil
import tempfile
from pathlib import Path

import pyarrow.fs as pafs

from attninf_assets.store.fsync import sync_directories, sync_file
from attninf_assets.store.root import Root
from attninf_assets.store.scratch import UNFINISHED, held_directory


def publish_directory(root: Root, local: Path, relative: str) -> None:
    """Copy the files of `local` to `relative` under the root, unless they are there already.

    `config.json` comes last, so its presence means that the directory is complete.
    """
    if root.exists(f"{relative}/config.json"):
        return
    files = sorted((f for f in local.iterdir() if f.is_file()), key=lambda f: (f.name == "config.json", f.name))
    if root.is_local:
        target = Path(root.uri) / relative
        with held_directory(target.parent, UNFINISHED) as staged:
            for file in files:
                shutil.copyfile(file, staged / file.name)
                sync_file(staged / file.name)
            try:
                os.rename(staged, target)
            except OSError:
                if not (target / "config.json").exists():
                    raise
        sync_directories([target], top=Path(root.uri))
        return
    for file in files:
        remote, path = root.locate(f"{relative}/{file.name}")
        pafs.copy_files(str(file), path, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=remote)


def local_directory(root: Root, relative: str, *, cache: Path) -> Path:
    """A local directory with the files of `relative`: the place itself under a local root, else a copy under `cache`.

    Raises `ValueError` naming the place where nothing complete is there.
    """
    if not root.exists(f"{relative}/config.json"):
        raise ValueError(f"{root.uri}/{relative}: no pinned model there; materialize selector_model")
    if root.is_local:
        return Path(root.uri) / relative
    target = cache / relative
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            copy = Path(scratch) / "model"
            copy.mkdir()
            remote, path = root.locate(relative)
            pafs.copy_files(path, str(copy), source_filesystem=remote, destination_filesystem=pafs.LocalFileSystem())
            os.replace(copy, target)
    return target
