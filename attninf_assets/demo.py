"""The program behind `make demo`: materializes every asset once through Dagster, then prints a summary.

It runs on the sample corpus with the sample selector, unless the settings name others. Run again, it scores nothing.
"""

import sys
import time

import dagster as dg
import typer

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.display.reason import reason_of_top_document
from attninf_assets.orchestration.display.summary import summary
from attninf_assets.orchestration.runs.whole_run import materialize_everything


def main() -> None:
    """Materialize every asset of the settings' corpus once, and print what was selected. Settings are ATTNINF_*."""
    started = time.monotonic()
    project = definitions()
    with dg.DagsterInstance.get() as instance:
        came = materialize_everything(project, instance, say=_say)
    for what, why in came.failed.items():
        print(f"failed: {what}: {why}", file=sys.stderr)
    if came.failed:
        sys.exit(1)
    resources = project.resources or {}
    lake, corpus = resources["lake"], resources["corpus"]
    assert isinstance(lake, LakeResource)
    assert isinstance(corpus, CorpusResource)
    print(summary(lake.tables(), n_scored=came.n_scored, seconds=time.monotonic() - started))
    if reason := reason_of_top_document(lake, corpus, compute=came.n_scored > 0):
        print(reason)


def _say(line: str) -> None:
    print(f"\n{line}", flush=True)


if __name__ == "__main__":
    typer.run(main)
