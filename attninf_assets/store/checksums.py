"""The sha256 of every data file of a table that was found sound, in one file for each table under `checksums/`.

Files of a table are written once and never again, so what differs from its record is damaged. What a commit added is
recorded with the copy of it (see `log_copies`), and taken over from there by the next scrub.
"""

import hashlib
import json
from collections.abc import Mapping

from attninf_assets.store.root import Root

__all__ = ["read_checksums", "record_of", "write_checksums"]


def read_checksums(root: Root, name: str) -> dict[str, str]:
    """sha256 by path below the table's directory; nothing where nothing was recorded yet.

    Raises ValueError where the record itself is damaged: it begins with a sha256 of its own.
    """
    path = record_of(name)
    try:
        digest, _, record = root.read_bytes(path).partition(b"\n")
    except FileNotFoundError:
        return {}
    if hashlib.sha256(record).hexdigest().encode() != digest:
        raise ValueError(f"{root.uri}/{path}: the record of checksums is damaged")
    return json.loads(record)


def write_checksums(root: Root, name: str, checksums: Mapping[str, str]) -> None:
    """Put them in place of the table's record."""
    record = json.dumps(dict(sorted(checksums.items())), indent=0).encode()
    root.write_bytes(record_of(name), hashlib.sha256(record).hexdigest().encode() + b"\n" + record)


def record_of(name: str) -> str:
    """Where a table's record is, below the root."""
    return f"checksums/{name}.json"
