"""One commit of a table's log as plain data, and whether its file is whole.

delta-rs writes one JSON action a line: first `commitInfo`, which counts the files that the commit adds and removes,
then those files, then the number of an appending writer. So a file that was cut short, be it at the end of a line, is
told from a whole one by itself. What cannot be told: a commit by another program that counts nothing and was cut at the
end of a line.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from attninf_assets.store.root import Root

__all__ = ["TRANSACTIONS", "Commit"]

TRANSACTIONS = "attninf.transactions"  # in commitInfo: how many `txn` actions follow, which delta-rs does not count
_COUNTED = {"add": ("num_added_files", "numFilesAdded"), "remove": ("num_removed_files", "numFilesRemoved")}


@dataclass(frozen=True)
class Commit:
    """What one version of a table added and removed."""

    version: int
    info: Mapping[str, Any]  # commitInfo: its timestamp in milliseconds, and what the writer noted
    added: Mapping[str, int]  # files by path below the table's directory, and their bytes
    removed: frozenset[str]

    @classmethod
    def read(cls, root: Root, name: str, version: int) -> "Commit | None":
        """That version of the table; None where the log does not have it, or no longer.

        Raises ValueError naming the table and the file if the file is not a whole commit.
        """
        path = f"tables/{name}/_delta_log/{version:020}.json"
        try:
            data = root.read_bytes(path)
        except FileNotFoundError:
            return None
        try:
            return cls._of(version, data)
        except ValueError as error:
            raise ValueError(
                f"table {name}: {root.uri}/{path} is not a whole commit ({error}), as after a power cut; "
                "`attninf repair --apply` puts it back if a copy was kept. If none was, move it and every later commit "
                "away, and materialize again what they held"
            ) from error

    @classmethod
    def _of(cls, version: int, data: bytes) -> "Commit":
        actions = [json.loads(line) for line in data.splitlines()]
        if not actions or not all(isinstance(action, dict) for action in actions):
            raise ValueError(f"{len(data)} bytes without an action" if not actions else "a line is no action")
        found = Counter(kind for action in actions for kind in action)
        info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        metrics = info.get("operationMetrics") or {}
        expected = {"txn": int(info.get(TRANSACTIONS, 0))}
        expected |= {kind: metrics[key] for kind, keys in _COUNTED.items() for key in keys if key in metrics}
        if version == 0:
            expected |= {"protocol": 1, "metaData": 1}
        for kind, count in expected.items():
            if found[kind] != int(count):
                raise ValueError(f"{found[kind]} of {count} actions {kind}")
        added = [action["add"] for action in actions if "add" in action]
        return cls(
            version=version,
            info=info,
            added={unquote(file["path"]): int(file["size"]) for file in added},
            removed=frozenset(unquote(action["remove"]["path"]) for action in actions if "remove" in action),
        )
