"""benchmarks.cuda, on a machine without such a device: steps that fail, and the script itself in small."""

import sys
from pathlib import Path

import pytest

from attninf_assets.influence import heads
from benchmarks import cuda
from benchmarks.cuda import Step, last_line, run, steps_on


def step(program: str, *, seconds: int = 60, name: str = "a_step") -> Step:
    return Step(name, "≥ 1", ["-c", program], seconds, lambda output: cuda.last_row(output)[1])


@pytest.mark.parametrize(
    ("program", "seconds", "said"),
    [
        ("raise ValueError('no such kernel')", 60, "exit code 1: ValueError: no such kernel"),
        ("import os; print('an illegal access', flush=True); os.abort()", 60, "exit code -6: an illegal access"),
        ("import time; print('slow', flush=True); time.sleep(60)", 1, "not done in 1 s: slow"),
        ("print('nothing')", 60, "its output is not as expected (no row of figures): nothing"),
    ],
)
def test_a_step_that_fails_says_how_and_takes_no_other_along(
    program: str, seconds: int, said: str, tmp_path: Path
) -> None:
    failed = run(step(program, seconds=seconds), logs=tmp_path)
    assert not failed.passed
    assert failed.said == said
    assert f"| **failed**: {said} |" in failed.row
    passed = run(step("print('| 7 | 3.5 |')", name="another"), logs=tmp_path)
    assert passed.passed
    assert passed.said == "3.5"
    assert (tmp_path / "another.log").read_text() == "| 7 | 3.5 |\n"


def test_without_a_device_the_script_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["cuda"])
    with pytest.raises(SystemExit) as stopped:
        cuda.main()
    assert stopped.value.code == 2
    assert "no CUDA device: torch" in capsys.readouterr().err


def test_the_steps_fit_into_ten_minutes_and_have_names_of_their_own() -> None:
    steps = steps_on("cuda", small=False)
    assert sum(step.seconds for step in steps) <= 660, "their bounds; none is expected to reach its own"
    assert len({step.name for step in steps}) == len(steps)


def test_the_first_failure_is_named_and_the_steps_after_it_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    steps = [step("print('| 1 | 2 |')", name="one"), step("raise SystemExit('broken')", name="two")]
    monkeypatch.setattr(cuda, "steps_on", lambda *_, **__: [*steps, step("print('| 1 | 4 |')", name="three")])
    monkeypatch.setattr(sys, "argv", ["cuda", "--device", "cpu", "--logs", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"first to fail: two, see .*two\.log"):
        cuda.main()
    out = capsys.readouterr().out
    assert "| two | ≥ 1 | **failed**: exit code 1: broken |" in out
    assert "| three | ≥ 1 | 4 |" in out
    assert "2 of 3 steps passed" in out


@pytest.mark.parametrize("name", ["scoring_1.7b", "profile", "detection", "idle"])
def test_a_small_step_on_this_machine_gives_the_figures_that_the_table_wants(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: what a step runs, and what is read from what it prints."""
    import importlib

    [chosen] = [found for found in steps_on("cpu", small=True) if found.name == name]
    _, module, *arguments = chosen.command
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    for gate in ("SUCCESS", "check_singled_out"):  # which detection on random weights opens
        monkeypatch.setattr(heads, gate, getattr(heads, gate))
    importlib.import_module(module).main()
    said = chosen.summary(capsys.readouterr().out)
    wanted = {
        "scoring_1.7b": "× naive",
        "profile": "kernels",
        "detection": "of the ceiling",
        "idle": "idle at most",
    }
    assert wanted[name] in said
    assert last_line(said) == said
