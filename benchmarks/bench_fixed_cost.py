"""What a run costs before and beside its work, and how large shards must be for that to be 5 % of the scoring.

    python -m benchmarks.bench_fixed_cost [--documents 20]

Runs, each a process of its own with everything that belongs to a run (imports, model, checks, events), from its start
to its end: one that indexes a shard, and one that indexes four; a first scoring run, which checks the model against
itself, and one that remembers it; over one shard, over one twice as long, over four of the first length; one that finds
all of these current; thresholds. The differences of the scoring runs are the time to score a shard, what each further
partition of a run costs, and what the run itself does. Seconds are CPU seconds of one thread: by the clock of a machine
with nothing else to do, and whatever else this one does.
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

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS, RANGE_END_TAG, RANGE_START_TAG, SELECTIONS
from attninf_assets.selection.definitions import PAPER
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake

_SHARE = 0.05
_SHARDS = ("first", "one", "two", "a", "b", "c", "d")
_RATES = (1_000, 10_000, 50_000, 100_000, 200_000)  # tokens per second of a device


def main() -> None:
    """Print the seconds, and the shard sizes that follow from them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20, help="of a shard")
    parser.add_argument("--run", nargs="+", metavar="FOLDER ASSET [FIRST LAST]", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        folder, asset, *ends = arguments.run
        _run(Path(folder), asset, *ends)
        return
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        _write_corpus(folder, arguments.documents)
        index_one, index_four = (_seconds(folder, "raw_corpus", *ends) for ends in (("one", "one"), ("a", "d")))
        _seconds(folder, "raw_corpus", "first", "two")
        _publish_selector(_lake().root)
        scores = "attention_influence_scores"
        first, once, twice, four, current = (
            _seconds(folder, scores, *ends)
            for ends in (("first", "first"), ("one", "one"), ("two", "two"), ("a", "d"), ("a", "d"))
        )
        thresholds = _seconds(folder, "score_thresholds", PAPER)
        tokens = sum(_lake().read("scores", where={"domain": "bench", "shard": "one"})["n_tokens"].to_pylist())
    print(f"indexing one shard: {index_one:.1f} s, each further one: {(index_four - index_one) / 3:.1f} s")
    print(f"thresholds: {thresholds:.1f} s; four shards whose scores are current: {current:.1f} s")
    print(f"the first scoring run, with the self-check: {first:.1f} s; the next: {once:.1f} s")
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


def _write_corpus(folder: Path, n_documents: int) -> None:
    from benchmarks.sample import sample_texts  # noqa: PLC0415, not to be loaded by the runs that are measured

    texts = sample_texts()
    assert len(texts) >= n_documents, f"the sample corpus has {len(texts)} documents"
    texts = texts[:n_documents]
    (folder / "bench").mkdir()
    for name in _SHARDS:
        lines = [json.dumps({"text": text}) for text in texts * (2 if name == "two" else 1)]
        (folder / "bench" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "corpus.yaml").write_text("domains:\n  bench: {files: 'bench/*.jsonl', format: jsonl}\n")
    os.environ |= {"ATTNINF_CORPUS": f"{folder}/corpus.yaml", "ATTNINF_ROOT": f"{folder}/root"}
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        instance.add_dynamic_partitions(CORPUS_SHARDS, [f"bench.{name}" for name in _SHARDS])
        instance.add_dynamic_partitions(SELECTIONS, [PAPER])


def _publish_selector(root: Root) -> None:
    """The sample model, whose heads are where detection finds them; what the detection said plays no part here."""
    import numpy as np  # noqa: PLC0415, as above

    from attninf_assets.influence.detection import AnswerLoss, HeadDetection, HeadEvidence  # noqa: PLC0415
    from attninf_assets.influence.model.head import Head  # noqa: PLC0415
    from attninf_assets.influence.selector import Selector  # noqa: PLC0415
    from attninf_assets.selector.building import pin_selector_model  # noqa: PLC0415
    from attninf_assets.selector.stored import Detection, publish_selector  # noqa: PLC0415
    from benchmarks.sample import sample_model_directory  # noqa: PLC0415

    pinned = pin_selector_model(root, str(sample_model_directory()))
    heads = tuple(Head(layer, index) for layer in (17, 18, 20, 21, 22, 23, 24) for index in (5, 7))
    nothing = AnswerLoss(0.0, 0.0)
    detection = HeadDetection(np.zeros((30, 9)), np.zeros((30, 9)), heads, 0, 0, 0.0, 0.0)
    evidence = HeadEvidence(nothing, nothing, (nothing,), (), 0)
    digests = pinned.digests
    selector = Selector(digests.model, digests.tokenizer, heads, "uniform", 4096, "bos", "float32")
    publish_selector(root, selector, Detection(detection, evidence))


def _run(folder: Path, asset: str, *ends: str) -> None:
    tags = {tag: f"bench.{end}" for tag, end in zip((RANGE_START_TAG, RANGE_END_TAG), ends, strict=False)}
    if ends == (PAPER,):
        tags = {"dagster/partition": PAPER}
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        definitions().resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey(asset)], tags=tags
        )


def _seconds(folder: Path, asset: str, *ends: str) -> float:
    command = [sys.executable, "-m", "benchmarks.bench_fixed_cost", "--run", str(folder), asset, *ends]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A home of its own: what the first scoring run remembers lies there.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _lake() -> Lake:
    lake = resources_from(read_settings())["lake"]
    assert isinstance(lake, LakeResource)
    return lake.tables()


if __name__ == "__main__":
    main()
