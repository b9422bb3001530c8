"""What an idle code server costs: seconds and memory to import and build the definitions, and `dg list defs`.

python -m benchmarks.bench_definitions --repeats 3
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_PROGRAM = """
import resource, sys, time
begin = time.process_time()
from attninf_assets.definitions import definitions
definitions()
heavy = [name for name in ("torch", "transformers", "duckdb", "matplotlib") if name in sys.modules]
mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{time.process_time() - begin:.2f} CPU s, {mib:.0f} MiB, loaded: {', '.join(heavy) or 'none of the heavy ones'}")
"""


def main() -> None:
    """Print each repetition of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as home:
        shutil.copy(_ROOT / "dagster.yaml", home)
        environment = {**os.environ, "DAGSTER_HOME": home}
        for _ in range(repeats):
            print(f"definitions: {_run([sys.executable, '-c', _PROGRAM], environment).stdout.strip()}")
        for _ in range(repeats):
            begin = _processor_seconds()
            done = _run([str(Path(sys.executable).with_name("dg")), "list", "defs", "--json"], environment)
            lines = len(done.stderr.splitlines())
            print(f"dg list defs: {_processor_seconds() - begin:.1f} CPU s, {lines} lines on stderr")


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=True)


if __name__ == "__main__":
    main()
