"""Everything under `selectors/` compared with what was written there."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from attninf_assets.selector.model_files import pinned_files, stored_sha256
from attninf_assets.store.damage import CHANGED, MISSING, Damage
from attninf_assets.store.json_records import fault_of_record
from attninf_assets.store.root import Root

__all__ = ["damaged_selector_files", "model_of"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


def damaged_selector_files(root: Root) -> Iterator[Damage]:
    """Pinned files that are not those that were pinned, and records that are not what was written.

    Reads every file once. Of a model that release 0.1.0 pinned there is no list of its files: it is compared with its
    digest where it is loaded.
    """
    there: dict[str, set[str]] = {}
    for path in root.list("selectors"):
        digest = model_of(path)
        if digest is not None:
            there.setdefault(digest, set()).add(PurePosixPath(path).name)
        elif path.endswith(".json") and "/." not in path and (wrong := fault_of_record(root, path)):
            yield Damage(path, wrong)
    for digest, names in there.items():
        directory = f"selectors/{digest}"
        for name, sha256 in sorted((pinned_files(root, directory) or {}).items()):
            if name not in names:
                yield Damage(f"{directory}/{name}", MISSING)
            elif stored_sha256(root, f"{directory}/{name}") != sha256:
                yield Damage(f"{directory}/{name}", CHANGED)


def model_of(path: str) -> str | None:
    """The digest of the pinned model that a file under the root is of; None where it is of none."""
    parts = PurePosixPath(path).parts
    return parts[1] if len(parts) == 3 and parts[0] == "selectors" and _DIGEST.fullmatch(parts[1]) else None
