"""SIGKILL at random instants of everything that writes under a root, local and on S3; then the same work again.

python -m attninf_assets_tests.torture.kills --count 1000
"""

import shlex
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attninf_assets.store.root import Root
from attninf_assets_tests.torture.attempts import Attempt, attempts, seeds_parser, told
from attninf_assets_tests.torture.killing import Hunt, outcomes
from attninf_assets_tests.torture.victims import VICTIMS
from benchmarks.rigs.s3 import s3_server

__all__ = ["hunt_on", "main"]

_MODULE = "attninf_assets_tests.torture.kills"


@contextmanager
def hunt_on(kind: str, directory: Path) -> Iterator[Hunt]:
    """Kills on local disk below the directory, or on an S3 server of their own."""
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        root = Root.at(directory / "base/root")
        if kind == "s3":
            root = Root.at("s3://lake/kills/base", stack.enter_context(s3_server()))
        yield Hunt(kind, root, directory)


def main() -> int:
    """Kill as often as asked; returns how often something was wrong."""
    parser = seeds_parser(__doc__, count=100)
    parser.add_argument("--root", choices=("local", "s3"), help="both in turn unless said")
    parser.add_argument("--victim", choices=VICTIMS, help="all in turn unless said")
    arguments = parser.parse_args()
    chosen = {"--root": arguments.root, "--victim": arguments.victim}
    options = [word for option, value in chosen.items() if value for word in (option, shlex.quote(value))]
    kinds = [arguments.root] if arguments.root else ["local", "s3"]
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="attninf-kills-"))
        hunts = [stack.enter_context(hunt_on(kind, directory / kind)) for kind in kinds]
        n_wrong = told(_MODULE, outcomes(_turns(hunts, arguments)), options=options, say=_say)
    if not n_wrong:
        shutil.rmtree(directory)
    return n_wrong


def _turns(hunts: Sequence[Hunt], arguments: Namespace) -> Iterator[tuple[Hunt, Attempt, str]]:
    """Roots and victims taking turns: which one it is follows from the attempt's number."""
    for attempt in attempts(arguments):
        turn, which = divmod(attempt.number, len(hunts))
        hunt = hunts[which]
        yield hunt, attempt, arguments.victim or hunt.victims[turn % len(hunt.victims)]


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(bool(main()))
