"""The power fails while a process writes: what it was told is done is there, and nothing half is taken for whole.

    python -m attninf_assets_tests.torture.power_cuts --count 100

The root lies on a file system of its own, in a file (see `support/power_cut.py`); where none can be mounted, which
takes the rights of root, nothing is attempted and a sentence says so. An attempt is one cut. A process does one thing
after the other there (scores staged, committed and cleared, with the row that says what they cost; a table replaced
whole; a file moved into place; a record written over; a model published; the lake maintained), and says what it begins
and what is done. At a random instant the file system forgets all that is not on the disk, journal included, and the
process is killed. Another process, which knows nothing, then finds

- everything that was done, and of what was being done all or nothing;
- of staged chunks all that were said to be staged, unless their scores are committed;
- no commit that is not whole, unless it is refused by its name; and once it and those after it are moved away, as the
  refusal asks, the table as it was before;

and each thing can be done again.
"""

import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from attninf_assets.scores.staging import STAGED_SCORES, StagedScores
from attninf_assets.selector.model_files import is_intact, publish_directory
from attninf_assets.store.maintenance import maintain
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.power_cut import Disk, NoDiskError, disk_to_cut
from attninf_assets_tests.support.processes import FORKED
from attninf_assets_tests.torture.attempts import Attempt, Outcome, attempts, seeds_parser, told
from attninf_assets_tests.torture.workers import StuckError, Worker
from attninf_assets_tests.torture.writes import made_rows, rows_of
from benchmarks.rigs.tables_of_scores import run_of, scores_of

__all__ = ["cut"]

_STEPS = ("scores", "whole", "file", "record", "model", "maintain")
_SHARDS = 3
_ROWS = 50
_LONGEST = 1.0  # seconds of work before the power fails
_PATIENCE = 120.0  # seconds for what nobody disturbs
_BROKEN = re.compile(r"table (\w+): .*/(\d{20})\.json is not a whole commit")

Said = list[tuple[str, int, str]]  # "begun", "staged" or "done", the number of the step, and what it does


def cut(attempt: Attempt, disk: Disk) -> Outcome:
    """Cut the power of a process at work, and look at what is left."""
    draw = attempt.random()
    root = Root.at(disk.path / f"root-{attempt.number}")
    here, there = FORKED.Pipe(duplex=False)
    worker = Worker(there)
    there.close()
    worker.ask(_work, root, draw.randrange(2**32))
    assert here.poll(_PATIENCE)
    time.sleep(draw.uniform(0, _LONGEST))
    disk.cut_power()
    worker.kill()
    said = list(_drained(here))
    disk.mount_again()
    finder = Worker()
    finder.ask(found_wrong, root, said)
    try:
        met, wrong = finder.answer(seconds=_PATIENCE)
    except StuckError as error:
        met, wrong = "nothing that could be read", [str(error)]
    finder.kill()
    if not wrong:
        shutil.rmtree(root.uri, ignore_errors=True)
    doing = _being_done(said)
    return Outcome(attempt, f"cut within {doing[1] if doing else 'nothing'}: {met}", "\n  ".join(wrong))


def _drained(here: Connection) -> Iterator[tuple[str, int, str]]:
    with suppress(EOFError):
        while here.poll():
            yield here.recv()


def _work(root: Root, seed: int, said: Connection) -> None:
    draw, number = random.Random(seed), 0
    while True:
        what = draw.choice(_STEPS)
        said.send(("begun", number, what))
        step(root, number, what, said)
        said.send(("done", number, what))
        number += 1


def step(root: Root, number: int, what: str, said: Connection | None = None) -> None:
    """Do one thing."""
    lake = Lake(root)
    if what == "scores":
        shard = f"s{number % _SHARDS}"
        rows = scores_of("web", shard, _ROWS, mark=f"m{number}")
        staging = StagedScores(root, f"m{number}", "web", shard)
        for begin in range(0, _ROWS, _ROWS // 2):
            staging.add(rows.slice(begin, _ROWS // 2).select(STAGED_SCORES.names))
            if said is not None:
                said.send(("staged", number, what))
        lake.replace("scores", rows, where={"domain": "web", "shard": shard})
        lake.append("scoring_runs", run_of("web", shard, number), writer="w", number=number)
        staging.clear()
    elif what == "whole":
        lake.replace("thresholds", made_rows("thresholds", f"m{number}", {}))
    elif what == "file":
        with root.open_output(f"files/.{number}.unfinished") as stream:
            stream.write(_content(number))
        root.move(f"files/.{number}.unfinished", f"files/{number}")
    elif what == "record":
        root.write_bytes("record", _content(number))
    elif what == "model":
        with tempfile.TemporaryDirectory() as directory:
            for name in ("config.json", "model.safetensors"):
                Path(directory, name).write_bytes(_content(number))
            publish_directory(root, Path(directory), f"selectors/{number}")
    else:
        maintain(lake, selector_fingerprint=None)


def _content(number: int) -> bytes:
    return f"the whole of {number}".encode() * 1_000


def _being_done(said: Said) -> tuple[int, str] | None:
    return said[-1][1:] if said and said[-1][0] != "done" else None


Pieces = dict[str, object]


def after(pieces: Pieces, number: int, what: str) -> Pieces:
    """What is there once a step is done, by the plainest means."""
    runs = pieces.get("scoring_runs", ())
    assert isinstance(runs, tuple)
    new: dict[str, Pieces] = {
        "scores": {f"scores s{number % _SHARDS}": (f"m{number}", _ROWS), "scoring_runs": (*runs, number)},
        "whole": {"thresholds": rows_of(made_rows("thresholds", f"m{number}", {}))},
        "file": {f"file {number}": _content(number)},
        "record": {"record": _content(number)},
        "model": {f"model {number}": _content(number)},
        "maintain": {},
    }
    return pieces | new[what]


def found(root: Root) -> Pieces:
    """What is there, piece by piece, as its readers see it."""
    lake, pieces = Lake(root), Pieces()
    for shard in (f"s{n}" for n in range(_SHARDS)):
        marks = lake.read("scores", where={"domain": "web", "shard": shard})["selector_fingerprint"].to_pylist()
        if marks:
            pieces[f"scores {shard}"] = (" and ".join(sorted(set(marks))), len(marks))
    if runs := lake.read("scoring_runs")["scores_version"].to_pylist():
        pieces["scoring_runs"] = tuple(sorted(runs))
    if rows := rows_of(lake.read("thresholds")):
        pieces["thresholds"] = rows
    for path in root.list("files"):
        if not path.endswith(".unfinished"):
            pieces[f"file {path.removeprefix('files/')}"] = root.read_bytes(path)
    if root.exists("record"):
        pieces["record"] = root.read_bytes("record")
    for listed in root.list("selectors/files"):
        if listed.endswith(".json") and not Path(listed).name.startswith("."):
            name = Path(listed).stem
            intact = is_intact(root, f"selectors/{name}")
            pieces[f"model {name}"] = root.read_bytes(f"selectors/{name}/model.safetensors") if intact else "damaged"
    return pieces


def found_wrong(root: Root, said: Said) -> tuple[str, list[str]]:
    """What of the work is there, and what is wrong with it, as a process finds it that has not seen it."""
    broken = _moved_away(root)
    before: Pieces = {}
    for kind, number, what in said:
        if kind == "done":
            before = after(before, number, what)
    doing = _being_done(said)
    whole = before if doing is None else after(before, *doing)
    there = found(root)
    met = "all of that is there" if there == whole else "not all of that is there"
    wrong = _differing(there, before, whole)
    if doing is not None and doing[1] == "scores":
        wrong += _staged_wrong(root, doing[0], there, sum(kind == "staged" and n == doing[0] for kind, n, _ in said))
    for number, what in enumerate(_STEPS, start=(said[-1][1] if said else 0) + 1):
        step(root, number, what)
        there = after(there, number, what)
    wrong += [f"done again, {one}" for one in _differing(found(root), there)]
    return f"{met}, a commit is named as unfinished" if broken else met, wrong


def _differing(there: Pieces, *allowed: Pieces) -> list[str]:
    return [
        f"{piece} is {_words(there.get(piece))}, not {' or '.join(_words(one.get(piece)) for one in allowed)}"
        for piece in sorted(there.keys() | {name for one in allowed for name in one})
        if there.get(piece) not in [one.get(piece) for one in allowed]
    ]


def _words(value: object) -> str:
    return "absent" if value is None else f"{value!r:.80}"


def _staged_wrong(root: Root, number: int, there: Pieces, n_staged: int) -> list[str]:
    """Half of the rows are staged at a time; they are needed until the commit is seen."""
    shard = f"s{number % _SHARDS}"
    if there.get(f"scores {shard}") == (f"m{number}", _ROWS):
        return []
    n = len(StagedScores(root, f"m{number}", "web", shard).read())
    return [] if n >= n_staged * _ROWS // 2 else [f"{n} rows are staged, of {n_staged} halves of {_ROWS}"]


def _moved_away(root: Root) -> list[str]:
    """Commits that are refused as unfinished, moved away with all later ones."""
    broken = []
    for name in ("scores", "scoring_runs", "thresholds"):
        while True:
            try:
                Lake(root).version(name)
                break
            except ValueError as error:
                refused = _BROKEN.search(str(error))
                if refused is None:
                    raise
            broken.append(refused[0])
            for commit in Path(root.table_uri(name), "_delta_log").glob("*.json"):
                if commit.stem >= refused[2]:
                    commit.unlink()
    return broken


def main() -> None:
    """Cut the power as often as asked, and exit with 1 if anything went wrong."""
    arguments = seeds_parser(__doc__, count=100).parse_args()
    with tempfile.TemporaryDirectory(prefix="attninf-power-") as directory:
        try:
            with disk_to_cut(Path(directory)) as disk:
                outcomes = (cut(attempt, disk) for attempt in attempts(arguments))
                sys.exit(told("attninf_assets_tests.torture.power_cuts", outcomes) > 0)
        except NoDiskError as error:
            print(f"skipped: {error}")


if __name__ == "__main__":
    main()
