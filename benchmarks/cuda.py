"""Everything that only a CUDA device can show, in ten minutes: tests, ceiling, scoring, detection, idle, profile.

python -m benchmarks.cuda                          # prints a table for RESULTS.md; whole outputs under build/cuda
python -m benchmarks.cuda --only scoring_1.7b      # one step, or several
python -m benchmarks.cuda --device cpu --small     # the script itself, tried where there is no such device

Each step is a process of its own with a time of its own, so that one that fails, or leaves the device unusable to its
process, takes nothing else along. Needs torch with CUDA, transformers and numpy; pytest for the tests; the project's
other dependencies and the package index for the step on the sample model alone.
"""

import argparse
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_TESTS = ["-m", "pytest", "-q", "-c", "/dev/null", "--noconftest", "-p", "no:cacheprovider"]
_TEST_FILE = "attninf_assets_tests/influence/test_gpu.py"
_OUT_OF_MEMORY = "test_memory_that_runs_out_costs_no_document"


@dataclass(frozen=True)
class Step:
    """A measurement: a Python command, the seconds it may take, and what its output says in a few words."""

    name: str
    target: str
    command: Sequence[str]  # what stands behind `python`
    seconds: int
    summary: Callable[[str], str]


@dataclass(frozen=True)
class Outcome:
    """What became of a step: its figures, or why there are none."""

    step: Step
    passed: bool
    said: str
    seconds: float

    @property
    def row(self) -> str:
        """The step's row of the table."""
        said = self.said if self.passed else f"**failed**: {self.said}"
        command = f"`python {' '.join(self.step.command)}`"
        return f"| {self.step.name} | {self.step.target} | {said} | {self.seconds:.0f} s | {command} |"


def main() -> None:
    """Run the steps and print the table; exit code 1 where one failed, 2 where there is no device to run on."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--small", action="store_true", help="tiny shapes: seconds, and figures that mean nothing")
    arguments.add_argument("--only", action="append", help="a step's name; may be repeated")
    arguments.add_argument("--logs", type=Path, default=Path("build/cuda"), help="where the steps' outputs go")
    chosen = arguments.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            f"no CUDA device: torch {torch.__version__} sees none. Needed are an NVIDIA device with 16-bit matrix "
            "units (compute capability 8.0 or later, 9.0 for float8; 40 GiB for the 1.7B shape), its driver, and a "
            "build of torch for CUDA (not `+cpu`). To try this script: --device cpu --small",
            file=sys.stderr,
        )
        raise SystemExit(2)
    steps = steps_on(chosen.device, small=chosen.small)
    names = [step.name for step in steps]
    if unknown := [name for name in chosen.only or [] if name not in names]:
        raise SystemExit(f"--only {unknown[0]}: no such step; there are {', '.join(names)}")
    print(f"{datetime.now(UTC):%Y-%m-%d}. {described(torch.device(chosen.device))}.", flush=True)
    outcomes = [run(step, logs=chosen.logs) for step in steps if not chosen.only or step.name in chosen.only]
    print("\n| step | target | result | took | command |\n|---|---|---|---|---|")
    print("\n".join(outcome.row for outcome in outcomes))
    failed = [outcome.step.name for outcome in outcomes if not outcome.passed]
    print(f"\n{len(outcomes) - len(failed)} of {len(outcomes)} steps passed; outputs are in {chosen.logs}", flush=True)
    if failed:
        raise SystemExit(f"first to fail: {failed[0]}, see {chosen.logs / failed[0]}.log")


def steps_on(device: str, *, small: bool) -> list[Step]:
    """The steps, what fails first where something is wrong before what is built upon it."""
    shape = ["--shape", "tiny" if small else "1.7b", "--device", device]
    documents = ["--documents", "1" if small else "400"]
    scoring = ["-m", "benchmarks.bench_scoring"]
    in_float8 = ["--numeric-class", "float8"]
    detection = ["--probes", "2", "--probe-tokens", "64"] if small else ["--probes", "800", "--probe-tokens", "4096"]
    steps = [
        Step("ceiling", "", ["-m", "benchmarks.bench_ceiling", "--device", device], 30, last_line),
        Step("tests", "all pass", [*_TESTS, "-k", f"not {_OUT_OF_MEMORY}", _TEST_FILE], 150, last_line),
        Step("out_of_memory", "recovers", [*_TESTS, "-k", _OUT_OF_MEMORY, _TEST_FILE], 40, last_line),
        Step(
            "scoring_1.7b",
            "≥ .55 of the ceiling, ≥ 6 × naive",
            [*scoring, *shape, *documents, "--rounds", "1" if small else "2"],
            90,
            scoring_summary,
        ),
        Step("profile", "", ["-m", "benchmarks.bench_profile", *shape, *documents], 40, profile_summary),
        Step(
            "detection",
            "800 probes of 4,096 tokens in ≤ 40 s",
            ["-m", "benchmarks.bench_detection", *shape, *detection, "--rounds", "1"],
            70,
            detection_summary,
        ),
        Step(
            "idle",
            "≤ 5 %",
            ["-m", "benchmarks.bench_idle", *shape, "--documents", "5" if small else "4000"],
            60,
            idle_summary,
        ),
    ]
    if small:
        return steps
    sample = ["--device", device, "--documents", "132", "--rounds", "1"]
    return [
        *steps,
        Step("scoring_sample", "≥ 1.8 × naive", [*scoring, *sample], 90, scoring_summary),
        Step("scoring_float8", "", [*scoring, *shape, *documents, *in_float8, "--rounds", "1"], 60, scoring_summary),
    ]


def run(step: Step, *, logs: Path) -> Outcome:
    """Run a step in a process of its own, its output into `logs`; never raises for what happens in it."""
    logs.mkdir(parents=True, exist_ok=True)
    print(f"\n$ python {' '.join(step.command)}", flush=True)
    started = time.perf_counter()
    log = logs / f"{step.name}.log"
    with log.open("w") as stream:
        try:
            done = subprocess.run(
                [sys.executable, *step.command],
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=step.seconds,
                check=False,
            )
            problem = f"exit code {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"not done in {step.seconds} s"
    seconds = time.perf_counter() - started
    output = log.read_text(errors="replace")
    print(output[-4000:], flush=True)
    if not problem:
        try:
            return Outcome(step, True, step.summary(output), seconds)
        except LookupError as error:
            problem = f"its output is not as expected ({error})"
    return Outcome(step, False, f"{problem}: {last_line(output)}"[:300].replace("|", "/"), seconds)


def described(device: torch.device) -> str:
    """The device, the driver's and the libraries' versions, for the head of a table."""
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        where = (
            f"{card.name}, {card.total_memory / 2**30:.0f} GiB, capability {card.major}.{card.minor}, "
            f"CUDA {torch.version.cuda}"
        )
    else:
        where = f"{device}, {platform.machine()}"
    versions = [f"torch {torch.__version__}"]
    for package in ("transformers", "numpy", "triton"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    return f"{where}; Python {platform.python_version()}, {', '.join(versions)}"


def last_line(output: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")


def last_row(output: str) -> list[str]:
    """The cells of the last row of numbers of a table. Raises `LookupError` where there is none."""
    rows = [line for line in output.splitlines() if re.match(r"\| *[\d.,]+ *\|", line)]
    if not rows:
        raise LookupError("no row of figures")
    return [cell.strip() for cell in rows[-1].strip("| ").split("|")]


def scoring_summary(output: str) -> str:
    """Of `bench_scoring`: tokens a second, against naive, against the ceiling; and fidelity to the naive way."""
    highest, _, fast, ratio, _, share, *_ = last_row(output)
    return (
        f"{fast} tokens/s, {ratio} × naive, {share} of {float(highest.replace(',', '')) / 1000:,.1f} TFLOP/s; "
        f"{last_line(output)}"
    )


def detection_summary(output: str) -> str:
    """Of `bench_detection`."""
    seconds, tokens, _, share = last_row(output)
    return f"{seconds} s, {tokens} tokens/s, {share} of the ceiling"


def idle_summary(output: str) -> str:
    """Of `bench_idle`."""
    idle, rate = _found(r"device (idle at most .*)", output), _found(r"([0-9,]+ tokens/s)", output)
    return f"{idle}; {rate}"


def profile_summary(output: str) -> str:
    """Of `bench_profile`: how much of the time are kernels, and the three longest."""
    kernels = re.findall(r"^\| [\d.,]+ \| ([\d.]+%) \| \d+ \| `(.*)` \|$", output, re.MULTILINE)[:3]
    longest = ", ".join(f"{share} {name[:40]}" for share, name in kernels)
    busy = _found(r"of which (kernels .*?\))", output)
    return f"{busy}; {longest}".replace("|", "/")


def _found(pattern: str, output: str) -> str:
    found = re.search(pattern, output)
    if found is None:
        raise LookupError(f"nothing like {pattern!r}")
    return found[1]


if __name__ == "__main__":
    main()
