"""The files of a table's log compared with their copies, and put back from them."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from attninf_assets.store.damage import CHANGED, MISSING, Damage
from attninf_assets.store.log_copies import LOG, LogCopy, delete_copies, read_copies, write_copy
from attninf_assets.store.open_tables import forget
from attninf_assets.store.root import Root

__all__ = ["TableLog"]

_POINTER = f"{LOG}/_last_checkpoint"  # written again with every checkpoint; its copies have the checkpoint's version
_COMMIT = re.compile(rf"{LOG}/(\d{{20}})\.json")
_CHECKPOINT = re.compile(rf"{LOG}/(\d{{20}})\.checkpoint\.parquet")
_AT_ONCE = 8


@dataclass(frozen=True)
class TableLog:
    """A table's log as it lies there, and the copies that were kept of it."""

    root: Root
    name: str
    files: Mapping[str, bytes]  # commits, checkpoints and the pointer to the last, by path below the table's directory
    table_id: str | None  # under which it was copied; None where no copy is of this table
    copies: Mapping[str, LogCopy]
    damaged_copies: tuple[Damage, ...]
    others: frozenset[str]  # ids of tables that lay here before, of which there are copies

    @classmethod
    def read(cls, root: Root, name: str) -> "TableLog":
        """The log as it is now."""
        copies, damaged = read_copies(root, name)  # before the log: so what is copied was in it
        paths = [path for path in root.list(f"tables/{name}/{LOG}") if _is_of_log(path.removeprefix(f"tables/{name}/"))]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = zip(paths, pool.map(lambda path: _content(root, path), paths), strict=True)
        files = {path.removeprefix(f"tables/{name}/"): content for path, content in found if content is not None}
        agreeing = {one: sum(files.get(file) == copy.content for file, copy in copies[one].items()) for one in copies}
        table_id = max(agreeing, key=agreeing.__getitem__, default=None)
        if table_id is not None and not agreeing[table_id]:
            table_id = None
        return cls(
            root,
            name,
            files,
            table_id,
            copies.get(table_id or "", {}),
            tuple(Damage(path, wrong, name) for path, wrong in damaged.items()),
            frozenset(copies) - {table_id or ""},
        )

    def damages(self) -> Iterator[Damage]:
        """Files that are not what was copied, or of which no copy was kept and that cannot be decoded."""
        for file, content in self.files.items():
            copy = self.copies.get(self._copied_as(file))
            wrong = _fault(file, content) if copy is None else "" if copy.content == content else CHANGED
            if file == _POINTER and not wrong:
                wrong = self._fault_of_pointer(content)
            if wrong:
                yield self._damage(file, wrong)
        for file in self.copies:
            if file not in self.files and not file.startswith(_POINTER) and not self._is_expired(file):
                yield self._damage(file, MISSING)
        if _POINTER not in self.files and self._newest_pointer() is not None:
            yield self._damage(_POINTER, MISSING)

    def can_put_back(self, damage: Damage) -> bool:
        """Whether it is known what a damaged file was; readers do without the pointer."""
        return damage.file in self.copies or damage.file == _POINTER

    def put_back(self, damage: Damage) -> None:
        """Write the file as it was. Raises ValueError where no copy of it was kept."""
        if not self.can_put_back(damage):
            raise ValueError(f"{self.root.uri}/{damage.path}: no copy of it was kept")
        copy = self._newest_pointer() if damage.file == _POINTER else self.copies[damage.file]
        if copy is None:
            self.root.delete(damage.path)
        else:
            self.root.write_bytes(damage.path, copy.content)
        forget(self.root, self.name)

    def keep_copies(self, table_id: str) -> None:
        """Copy what is not copied yet, and forget the copies of what has left the log. The log is to be sound."""
        for file, content in self.files.items():
            if (copied_as := self._copied_as(file)) not in self.copies:
                write_copy(self.root, self.name, table_id, copied_as, LogCopy(content, {}))
        for other in self.others:
            delete_copies(self.root, self.name, other)
        if self.table_id is not None:
            delete_copies(self.root, self.name, self.table_id, filter(self._is_expired, self.copies))

    def _copied_as(self, file: str) -> str:
        if file != _POINTER:
            return file
        version = _pointed_at(self.files[file])
        return file if version is None else f"{file}.{version:020}"

    def _newest_pointer(self) -> LogCopy | None:
        """The pointer as it was when it pointed at the newest of the checkpoints that are there."""
        pointers = (self.copies.get(f"{_POINTER}.{version:020}") for version in _versions(_CHECKPOINT, self.files))
        return next((pointer for pointer in pointers if pointer is not None), None)

    def _fault_of_pointer(self, content: bytes) -> str:
        """Where the pointer says anything else of its checkpoint than that says itself."""
        version = _pointed_at(content)
        if version is None:
            return "it points at no checkpoint"
        named = f"{LOG}/{version:020}.checkpoint.parquet"
        checkpoint = self.files.get(named)
        if checkpoint is None and f"{_POINTER}.{version:020}" in self.copies:
            return ""  # it is the checkpoint that is missing
        if checkpoint is None and self.root.exists(f"tables/{self.name}/{named}"):
            return ""  # both were written since the log was listed
        if checkpoint is None:
            return "it points at a checkpoint that is not there"
        if _fault("", checkpoint):
            return ""  # it is the checkpoint that is damaged
        actions = pq.read_metadata(pa.BufferReader(checkpoint)).num_rows
        said = json.loads(content).get("size")
        return "" if said == actions else f"it says that the checkpoint has {said} actions, it has {actions}"

    def _is_expired(self, file: str) -> bool:
        """Whether the log has let go of it: it does so of commits and checkpoints before one of its checkpoints."""
        checkpoint = next(_versions(_CHECKPOINT, self.files), -1)
        if file in self.files:
            return False
        if match := _COMMIT.fullmatch(file):
            return int(match[1]) <= checkpoint and int(match[1]) < min(_versions(_COMMIT, self.files), default=2**63)
        version = int(re.findall(r"\d{20}", file)[0])
        return version < checkpoint and f"{LOG}/{version:020}.checkpoint.parquet" not in self.files

    def _damage(self, file: str, what: str) -> Damage:
        return Damage(f"tables/{self.name}/{file}", what, self.name)


def _is_of_log(file: str) -> bool:
    return file == _POINTER or bool(_COMMIT.fullmatch(file) or _CHECKPOINT.fullmatch(file))


def _versions(kind: re.Pattern[str], files: Mapping[str, bytes]) -> Iterator[int]:
    """Of the files of that kind, the newest first."""
    return iter(sorted((int(match[1]) for file in files if (match := kind.fullmatch(file))), reverse=True))


def _content(root: Root, path: str) -> bytes | None:
    try:
        return root.read_bytes(path)
    except FileNotFoundError:  # it has left the log since it was listed
        return None


def _pointed_at(content: bytes) -> int | None:
    try:
        version = json.loads(content)["version"]
    except (ValueError, LookupError, TypeError):
        return None
    return version if isinstance(version, int) and 0 <= version < 10**20 else None


def _fault(file: str, content: bytes) -> str:
    """What is wrong with a file of the log by itself."""
    try:
        if file.endswith(".json"):
            if not [json.loads(line) for line in content.decode().splitlines()]:
                return "the commit is empty"
        elif file == _POINTER:
            json.loads(content)
        else:
            pq.read_table(pa.BufferReader(content)).validate(full=True)
    except Exception as error:  # decoding in memory: whatever it raises is the data's fault
        return f"it cannot be decoded: {type(error).__name__}: {error}"
    return ""
