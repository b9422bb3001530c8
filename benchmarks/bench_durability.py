"""What it costs a commit on local disk that a power cut cannot take it, and that its files are known by their sha256.

python -m benchmarks.bench_durability --rows 1000000 --commits 7
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from statistics import median

import duckdb
import pyarrow as pa

from attninf_assets.store import tables
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

_WHERE = {"domain": "web", "shard": "a"}
_ROWS = """
    SELECT 'https://example.org/' || sha256(range::VARCHAR)[:20] AS doc_id, 'web' AS domain, 'a' AS shard,
           sha256('text' || range) AS text_sha256, 700 AS n_tokens, 2 + random() AS loss_base,
           2 + random() AS loss_reference, random() AS score, 'f' AS selector_fingerprint,
           make_timestamptz(range) AS scored_at, NULL::DOUBLE[] AS window_scores
    FROM range({rows})
"""


def main() -> None:
    """Print the seconds of a commit, and how many of them it takes to push it to the disk, to hash and to copy it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--commits", type=int, default=7)
    arguments = parser.parse_args()
    rows = duckdb.sql(_ROWS.format(rows=arguments.rows)).to_arrow_table()
    rows = rows.select(TABLES["scores"].names).cast(TABLES["scores"])
    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as directory:
        whole, settling = zip(*_timed(Lake(Root.at(directory)), rows, arguments.commits), strict=True)
    shares = [part / (total - part) for part, total in zip(settling, whole, strict=True)]
    print(
        f"{arguments.rows:,} rows, {arguments.commits} commits: median {median(whole):.2f} s, of which to settle "
        f"{median(settling) * 1000:.0f} ms; beyond the rest {median(shares):.1%} (from {min(shares):.1%} to "
        f"{max(shares):.1%})"
    )


def _timed(lake: Lake, rows: pa.Table, commits: int) -> list[tuple[float, float]]:
    """Seconds of each commit, and of what follows it. The first, which creates the table, is left out."""
    taken = 0.0
    settle = tables.settle

    def timed_settle(root: Root, name: str, table_id: str, versions: Sequence[int]) -> None:
        nonlocal taken
        begin = time.perf_counter()
        settle(root, name, table_id, versions)
        taken += time.perf_counter() - begin

    tables.settle = timed_settle
    measured = []
    for _ in range(commits + 1):
        taken, begin = 0.0, time.perf_counter()
        lake.replace("scores", rows, where=_WHERE)
        measured.append((time.perf_counter() - begin, taken))
    return measured[1:]


if __name__ == "__main__":
    main()
