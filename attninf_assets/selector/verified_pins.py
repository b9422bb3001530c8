"""Pinned models are what they were pinned as: files are compared with the digest once on a machine."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from attninf_assets.selector.model_directory import digests_of_files, file_digests, model_files
from attninf_assets.store.scratch import UNFINISHED, held_directory

_log = logging.getLogger(__name__)
_REPAIR = "materialize selector_model again, which repairs it"


class DamagedPinError(ValueError):
    """A pinned model that is not what it was pinned as, with the file and both digests."""


def require_intact(
    directory: Path, *, digest: str, where: str, pinned_files: Mapping[str, str] | None, memory: Path
) -> None:
    """Raise `DamagedPinError` unless the model in `directory`, called `where`, has the digest that it was pinned under.

    The digest decides, and every byte is in it; `pinned_files`, the sha256 of the files as they were pinned, tell
    which file is another, where they are known. What was found intact is noted in the directory `memory`, by size,
    inode and times of every file, and not read again until one of these changes.
    """
    stamps = _stamps(directory)
    remembered = memory / f"{hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()}.json"
    found_before = json.dumps({"digest": digest, "files": stamps}, sort_keys=True)
    if _text(remembered) == found_before:
        return
    sha256_of = file_digests(directory)
    is_now = digests_of_files(sha256_of).model
    if is_now == digest:
        _remember(remembered, found_before)
        return
    listed = dict(pinned_files) if pinned_files else sha256_of
    for name in sorted({*sha256_of, *listed}):
        found, pinned = sha256_of.get(name, "no such file"), listed.get(name, "no such file")
        if found != pinned:
            raise DamagedPinError(
                f"{where}/{name}: not what was pinned: sha256 is {found}, pinned was {pinned}; {_REPAIR}"
            )
    raise DamagedPinError(
        f"{where}: not the model that was pinned: its digest is {is_now}, pinned was {digest}; {_REPAIR} "
        "(a model pinned before 0.2.0 gets a new digest by that, and its probes and heads are to be made again)"
    )


def _stamps(directory: Path) -> dict[str, list[int]]:
    stats = {file.name: file.stat() for file in model_files(directory)}
    return {name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats.items()}


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):  # none yet, or damaged: the model is read again
        return None


def _remember(file: Path, text: str) -> None:
    try:
        with held_directory(file.parent, UNFINISHED) as unfinished:
            (unfinished / file.name).write_text(text)
            os.replace(unfinished / file.name, file)
    except OSError as error:
        _log.warning(f"{file}: cannot be written, so the pinned model is read again next time: {error}")
