"""What a scoring run costs before and beside its scoring, and how large shards must be for that to be 5 % of it.

    python -m benchmarks.bench_fixed_cost [--documents 20]

Three runs, each a process of its own with everything that belongs to a run (imports, model, checks, events), from its
start to its end: over one shard, over one twice as long, over four of the first length. Their differences are the time
to score a shard, what each further partition of a run costs, and what the run itself does. Seconds are CPU seconds of
one thread: by the clock of a machine with nothing else to do, and whatever else this one does.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster as dg
import numpy as np

from attninf_assets.definitions import definitions
from attninf_assets.influence.detection import AnswerLoss, HeadDetection, HeadEvidence
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import Selector
from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.selector.building import pin_selector_model
from attninf_assets.selector.stored import Detection, publish_selector
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from benchmarks.sample import sample_model_directory, sample_texts

_SHARE = 0.05
_RATES = (1_000, 10_000, 50_000, 100_000, 200_000)  # tokens per second of a device


def main() -> None:
    """Print the seconds, and the shard sizes that follow from them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20, help="of a shard")
    parser.add_argument("--run", nargs=3, metavar=("FOLDER", "FIRST", "LAST"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        _run(Path(arguments.run[0]), ["attention_influence_scores"], *arguments.run[1:])
        return
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        _prepare(folder, arguments.documents)
        once, twice, four = (_seconds(folder, *ends) for ends in (("one", "one"), ("two", "two"), ("a", "d")))
        tokens = sum(_lake().read("scores", where={"domain": "bench", "shard": "one"})["n_tokens"].to_pylist())
    scoring = twice - once
    further = (four - once) / 3 - scoring
    fixed = once - scoring - further
    print(f"a shard of {tokens:,} tokens: {scoring:.1f} s at {tokens / scoring:,.0f} tokens per second")
    print(f"a run: {fixed:.1f} s; each of its partitions: {further:.1f} s besides scoring")
    print(f"\nsmallest shard, in tokens, for which that is {_SHARE:.0%} of the scoring:")
    print("tokens per second     1 a run     4 a run    16 a run")
    for rate in (round(tokens / scoring), *_RATES):
        sizes = [rate * (fixed / n + max(further, 0.0)) / _SHARE for n in (1, 4, 16)]
        print(f"{rate:>17,}" + "".join(f"{size:>12,.0f}" for size in sizes))


def _prepare(folder: Path, n_documents: int) -> None:
    texts = sample_texts()
    assert len(texts) >= n_documents, f"the sample corpus has {len(texts)} documents"
    texts = texts[:n_documents]
    (folder / "bench").mkdir()
    for name in ("one", "two", "a", "b", "c", "d"):
        lines = [json.dumps({"text": text}) for text in texts * (2 if name == "two" else 1)]
        (folder / "bench" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "corpus.yaml").write_text("domains:\n  bench: {files: 'bench/*.jsonl', format: jsonl}\n")
    os.environ |= {"ATTNINF_CORPUS": f"{folder}/corpus.yaml", "ATTNINF_ROOT": f"{folder}/root"}
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        instance.add_dynamic_partitions(CORPUS_SHARDS, [f"bench.{name}" for name in ("one", "two", "a", "b", "c", "d")])
    _run(folder, ["raw_corpus"], "one", "d")
    _publish_selector(_lake().root)


def _publish_selector(root: Root) -> None:
    """The sample model, whose heads are where detection finds them; what the detection said plays no part here."""
    pinned = pin_selector_model(root, str(sample_model_directory()))
    heads = tuple(Head(layer, index) for layer in (17, 18, 20, 21, 22, 23, 24) for index in (5, 7))
    nothing = AnswerLoss(0.0, 0.0)
    detection = HeadDetection(np.zeros((30, 9)), np.zeros((30, 9)), heads, 0, 0, 0.0, 0.0)
    evidence = HeadEvidence(nothing, nothing, (nothing,), (), 0)
    digests = pinned.digests
    selector = Selector(digests.model, digests.tokenizer, heads, "uniform", 4096, "bos", "float32")
    publish_selector(root, selector, Detection(detection, evidence))


def _run(folder: Path, assets: list[str], first: str, last: str) -> None:
    ends = {
        "dagster/asset_partition_range_start": f"bench.{first}",
        "dagster/asset_partition_range_end": f"bench.{last}",
    }
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        definitions().resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey(name) for name in assets], tags=ends
        )


def _seconds(folder: Path, first: str, last: str) -> float:
    command = [sys.executable, "-m", "benchmarks.bench_fixed_cost", "--run", str(folder), first, last]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _lake() -> Lake:
    lake = resources_from(read_settings())["lake"]
    assert isinstance(lake, LakeResource)
    return lake.tables()


if __name__ == "__main__":
    main()
