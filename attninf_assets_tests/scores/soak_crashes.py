"""Runs killed with SIGKILL at points spread over a partition's run, each then run again, on local disk and on S3.

python -m attninf_assets_tests.scores.soak_crashes --points 30
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attninf_assets.store.root import Root
from attninf_assets_tests.support.crashes import ScoringRuns
from benchmarks.rigs.s3 import s3_server


def main() -> None:
    """Print what each kill met, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--root", choices=("local", "s3"), action="append", help="default: both")
    arguments = parser.parse_args()
    for kind in arguments.root or ("local", "s3"):
        with tempfile.TemporaryDirectory(prefix="attninf-bench-") as directory, _root(kind, directory) as root:
            _measure(kind, root, Path(directory), points=arguments.points)


@contextmanager
def _root(kind: str, directory: str) -> Iterator[Root]:
    if kind == "local":
        yield Root.at(Path(directory) / "root")
        return
    with s3_server() as options:
        yield Root.at("s3://lake/crashes", options)


def _measure(kind: str, root: Root, directory: Path, *, points: int) -> None:
    runs = ScoringRuns(root, directory)
    print(f"{kind}: {runs.n_chunks} chunks, each staged; then the commit, {runs.seconds_of_commit * 1000:.1f} ms long")
    outcomes = []
    for number, (begun, after) in enumerate(runs.points(points)):
        outcome = runs.kill_and_run_again(f"point-{number}", begun=begun, after=after)
        outcomes.append(outcome)
        print(f"  killed past {outcome.reached} in the tables: {outcome.chunks_repeated} chunks repeated")
    print(
        f"{kind}: {sum(o.right for o in outcomes)} of {points} end with exactly the right rows; "
        f"{sum(o.whole_between for o in outcomes)} of {points} whole in between; "
        f"chunks repeated {dict(Counter(o.chunks_repeated for o in outcomes))}; "
        f"documents scored twice at most {max(o.documents_repeated for o in outcomes)}"
    )


if __name__ == "__main__":
    main()
