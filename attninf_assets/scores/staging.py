"""Scores already paid for but not yet committed, so that a killed run continues where it stopped.

A chunk is named by the sha256 of its bytes, so that any bit of it that changed is noticed.
"""

import hashlib
import io
import re
from collections.abc import Iterator
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attninf_assets.store.damage import Damage
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES, came_later

__all__ = ["STAGED_SCORES", "StagedScores", "damaged_chunks", "staged_shards"]

_SHA256 = re.compile(r"[0-9a-f]{64}")

STAGED_SCORES = pa.schema(
    [
        TABLES["scores"].field(column)
        for column in (
            "doc_id",
            "text_sha256",
            "n_tokens",
            "loss_base",
            "loss_reference",
            "score",
            "scored_at",
            "window_scores",
        )
    ]
)


def staged_shards(root: Root, selector_fingerprint: str) -> list[str]:
    """The keys of the shards of which anything is staged under the selector."""
    prefix = f"staging/{selector_fingerprint}/"
    found = (path.removeprefix(prefix).split("/") for path in root.list(prefix.rstrip("/")) if _is_chunk(path))
    return sorted({f"{domain}.{shard}" for domain, shard, _ in found})


class StagedScores:
    """The staged chunks of one shard under one selector: small Parquet files, each whole or absent."""

    def __init__(self, root: Root, selector_fingerprint: str, domain: str, shard: str) -> None:
        for part in (selector_fingerprint, domain, shard):
            if not part or "/" in part or part in (".", ".."):
                raise ValueError(f"staged scores: {part!r} cannot name a directory")
        self.root = root
        self.directory = f"staging/{selector_fingerprint}/{domain}/{shard}"

    def add(self, table: pa.Table) -> None:
        """Store a chunk with the columns of STAGED_SCORES. When this returns, a killed run keeps it."""
        buffer = io.BytesIO()
        pq.write_table(table.select(STAGED_SCORES.names).cast(STAGED_SCORES), buffer, compression="zstd")
        data = buffer.getvalue()
        self.root.write_bytes(f"{self.directory}/{hashlib.sha256(data).hexdigest()}.parquet", data)

    def read(self) -> pa.Table:
        """Every staged document once, by doc_id; of several scores of one text the latest is kept.

        They are scores by one selector, so it matters to nobody if a clock that is wrong makes another one latest.
        A chunk that another run of the shard clears meanwhile counts as absent. Raises ValueError naming the file if
        one cannot be read.
        """
        chunks = [self._chunk(path) for path in self.root.list(self.directory) if _is_chunk(path)]
        found = [chunk for chunk in chunks if chunk is not None]
        by_text = ("doc_id", "text_sha256")
        order = [(column, "ascending") for column in (*by_text, "scored_at", "loss_base", "loss_reference")]
        staged = pa.concat_tables([STAGED_SCORES.empty_table(), *found]).sort_by(order).combine_chunks()
        before, after = staged.slice(0, max(0, len(staged) - 1)), staged.slice(1)
        same_as_next = reduce(pc.and_, (pc.equal(before[column], after[column]) for column in by_text))
        latest = np.append(~np.asarray(same_as_next, dtype=bool), np.ones(min(1, len(staged)), dtype=bool))
        return staged.filter(pa.array(latest))

    def count(self) -> tuple[int, int]:
        """The documents and the tokens that are staged. What two runs have staged of one document counts once."""
        staged = self.read()
        return len(staged), int(pc.sum(staged["n_tokens"]).as_py() or 0)

    def holds_any(self) -> bool:
        """Whether anything is staged."""
        return bool(self.root.list(self.directory))

    def clear(self) -> None:
        """Forget every chunk; what the scores table holds makes them useless."""
        self.root.delete(self.directory)

    def _chunk(self, path: str) -> pa.Table | None:
        try:
            data = self.root.read_bytes(path)
        except FileNotFoundError:
            return None
        try:
            return _decoded(path, data)
        except ValueError as error:
            raise ValueError(f"{self.root.uri}/{path}: {error}; `attninf repair --apply` sets it aside") from error


def damaged_chunks(root: Root) -> Iterator[Damage]:
    """Chunks, of whatever shard and selector, that are not what was staged."""
    for path in filter(_is_chunk, root.list("staging")):
        try:
            _decoded(path, root.read_bytes(path))
        except FileNotFoundError:  # committed meanwhile
            continue
        except ValueError as error:
            yield Damage(path, str(error))


def _decoded(path: str, data: bytes) -> pa.Table:
    """Raises ValueError where it is not the chunk that was staged; until 0.1.0 chunks were named at random."""
    name = path.rsplit("/", 1)[-1].removesuffix(".parquet")
    if _SHA256.fullmatch(name) and hashlib.sha256(data).hexdigest() != name:
        raise ValueError("not the chunk of staged scores that it was: the sha256 is not the one it is named by")
    try:
        table = pq.read_table(io.BytesIO(data))
        for field in STAGED_SCORES:
            if came_later(field) and field.name not in table.column_names:  # an older version staged it
                table = table.append_column(field, pa.nulls(len(table), field.type))
        return table.cast(STAGED_SCORES)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"not a chunk of staged scores: {error}") from error


def _is_chunk(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.endswith(".parquet") and not name.startswith(".")
