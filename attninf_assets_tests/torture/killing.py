"""Processes killed at a random instant, the work run again, and what is there afterwards compared."""

import multiprocessing as mp
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from multiprocessing.process import BaseProcess
from pathlib import Path

from attninf_assets.store.root import Root
from attninf_assets_tests.support.processes import FORKED
from attninf_assets_tests.torture.attempts import Attempt, Outcome
from attninf_assets_tests.torture.material import build, make_material
from attninf_assets_tests.torture.readers import differing, leftovers, seen, unrecorded_runs
from attninf_assets_tests.torture.scene import Scene
from attninf_assets_tests.torture.victims import VICTIMS, Victim, maintain

__all__ = ["Hunt", "RunAgain", "outcomes"]

_PATIENCE = 180.0  # seconds for a run that nobody kills, on a machine that is busy with much else
_AGED = 1.1  # seconds after which the storage's clock, of whole seconds, says that a file is old
_WAITING = 3  # attempts
_BEYOND = 1.05  # of an undisturbed run's duration: so the last kills may come too late


@dataclass(frozen=True)
class _Undisturbed:
    """What a run that nobody kills finds and leaves."""

    scene: Scene  # before it
    old: dict[str, str]
    new: dict[str, str]
    seconds: float
    runs_recorded: bool  # every commit of scores has its row in `scoring_runs`
    kept: dict[str, str]  # after it and a maintenance


@dataclass(frozen=True)
class RunAgain:
    """An attempt whose second run has ended; its files are to grow old before maintenance finds them so."""

    attempt: Attempt
    victim: str
    scene: Scene
    met: str
    wrong: list[str]
    ended: float


class Hunt:
    """Kills over roots of one kind, `local` or `s3`. Everything lies below a directory, and on S3 below a prefix."""

    def __init__(self, kind: str, root: Root, directory: Path) -> None:
        self.kind, self._root, self._directory = kind, root, directory
        self._undisturbed: dict[str, _Undisturbed] = {}

    @property
    def victims(self) -> list[str]:
        """What can be killed there."""
        return [name for name, victim in VICTIMS.items() if self.kind in victim.roots]

    @cached_property
    def _base(self) -> Scene:
        make_material(self._directory / "material")
        scene = Scene(self._root, self._directory / "base", self._directory / "material")
        scene.place.mkdir()
        _must(scene, build)
        _must(scene, _maintain_later)
        return scene

    def _victim(self, name: str) -> _Undisturbed:
        if name not in self._undisturbed:
            victim = VICTIMS[name]
            scene = self._base.copied(f"{name.replace(' ', '-')}")
            scene.stripped(*victim.needs)
            _must(scene, victim.before)
            old = seen(scene.root)
            first = scene.copied(f"{scene.place.name}-undisturbed")
            _grown_old(victim)
            seconds = _must(first, victim.act)
            new = seen(first.root)
            _must(first, _maintain_later)
            assert (wrong := differing(seen(first.root), new)) == [], wrong
            self._undisturbed[name] = _Undisturbed(
                scene, old, new, seconds, not unrecorded_runs(first.root), leftovers(first)
            )
            first.removed()
        return self._undisturbed[name]

    def begin(self, attempt: Attempt, name: str) -> RunAgain:
        """Kill the victim, and run it again."""
        undisturbed, victim = self._victim(name), VICTIMS[name]
        scene = undisturbed.scene.copied(f"{undisturbed.scene.place.name}-{attempt.number}")
        _grown_old(victim)
        process = _started(scene, victim.act)
        time.sleep(attempt.random().uniform(0, _BEYOND) * undisturbed.seconds)
        killed = _kill(process)
        between = seen(scene.root)
        wrong = [f"between: {one}" for one in differing(between, undisturbed.old, undisturbed.new, also=victim.between)]
        met = _met(between, undisturbed) if killed else "had ended"
        wrong += [f"run again: {one}" for one in _ran(scene, victim.act)]
        wrong += [f"after: {one}" for one in differing(seen(scene.root), undisturbed.new)]
        if undisturbed.runs_recorded:
            wrong += [f"after: {one}" for one in unrecorded_runs(scene.root)]
        return RunAgain(attempt, name, scene, met, wrong, time.monotonic())

    def end(self, one: RunAgain) -> Outcome:
        """Maintain the lake, and say what came of it all."""
        undisturbed, scene, wrong = self._victim(one.victim), one.scene, one.wrong
        time.sleep(max(0.0, one.ended + _AGED - time.monotonic()))
        wrong += [f"maintenance: {said}" for said in _ran(scene, maintain)]
        wrong += [f"after maintenance: {piece}" for piece in differing(seen(scene.root), undisturbed.new)]
        found = leftovers(scene)
        wrong += [f"left over: {found[shape]}" for shape in sorted(found.keys() - undisturbed.kept.keys())]
        wrong += [f"gone: {undisturbed.kept[shape]}" for shape in sorted(undisturbed.kept.keys() - found.keys())]
        if wrong:
            wrong.append(f"what is there is kept: {scene.place}, {scene.root.uri}")
        else:
            scene.removed()
        return Outcome(one.attempt, f"{one.victim} on {self.kind}: {one.met}", "\n  ".join(wrong))


def outcomes(attempts: Iterable[tuple[Hunt, Attempt, str]]) -> Iterator[Outcome]:
    """What comes of attempts at these victims; while the files of some grow old, others are killed."""
    waiting: deque[tuple[Hunt, RunAgain]] = deque()
    for hunt, attempt, victim in attempts:
        waiting.append((hunt, hunt.begin(attempt, victim)))
        if len(waiting) > _WAITING:
            yield _ended(*waiting.popleft())
    yield from starmap(_ended, waiting)


def _ended(hunt: Hunt, one: RunAgain) -> Outcome:
    return hunt.end(one)


def _met(between: dict[str, str], undisturbed: _Undisturbed) -> str:
    if between == undisturbed.old:
        return "nothing to be seen of it yet"
    return "all to be seen" if between == undisturbed.new else "part of it to be seen"


def _grown_old(victim: Victim) -> None:
    if victim.aged:
        time.sleep(_AGED)


def _maintain_later(scene: Scene) -> None:
    time.sleep(_AGED)
    maintain(scene)


def _in_process(scene: Scene, act: Callable[[Scene], None], ready: "mp.synchronize.Event") -> None:
    scene.entered()
    ready.set()
    begin = time.monotonic()
    act(scene)
    (scene.place / "seconds").write_text(str(time.monotonic() - begin))  # what comes after is the interpreter's end


def _started(scene: Scene, act: Callable[[Scene], None]) -> BaseProcess:
    """A process that does it; returns when it is about to begin."""
    ready = FORKED.Event()
    process = FORKED.Process(target=_in_process, args=(scene, act, ready))
    process.start()
    assert ready.wait(_PATIENCE)
    return process


def _kill(process: BaseProcess) -> bool:
    """Whether it was still alive."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


def _ran(scene: Scene, act: Callable[[Scene], None]) -> list[str]:
    """What is wrong with a run that nobody kills: that it is stuck, or fails."""
    process = _started(scene, act)
    process.join(_PATIENCE)
    if process.exitcode is None:
        _kill(process)
        return [f"stuck for {_PATIENCE:.0f} s: {_last_words(scene)}"]
    return [] if process.exitcode == 0 else [f"exit code {process.exitcode}: {_last_words(scene)}"]


def _must(scene: Scene, act: Callable[[Scene], None]) -> float:
    """How many seconds it took."""
    wrong = _ran(scene, act)
    assert not wrong, f"{act.__name__}: {wrong[0]}"
    return float((scene.place / "seconds").read_text())


def _last_words(scene: Scene) -> str:
    return scene.log.read_text(errors="replace")[-1500:] if scene.log.exists() else ""
