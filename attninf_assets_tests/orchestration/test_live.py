"""Daemon, webserver and run processes together: files land, scores appear, the selector changes, things are killed."""

import dataclasses
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner, Result

from attninf_assets.cli import app
from attninf_assets.mixture.manifest import MANIFEST, Manifest
from attninf_assets.orchestration.runs.liveness import is_dead
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets_tests.support.pipeline import PROBES, SELECTOR, SHARDS, Pipeline, build_pipeline
from attninf_assets_tests.support.processes import attninf_process
from attninf_assets_tests.support.shown import checked, log_of, shown, shown_by_partition
from benchmarks.rigs.live import Live, live_system, prepare_home, until

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200)]
SCORES = dg.AssetKey("attention_influence_scores")
BROKEN, RESHARDED = "letters.c", ["letters.a", "letters.c", "notes.first"]
_PID = re.compile(r"pid: (\d+)")


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Three shards that landed an hour ago; nothing is known of them."""
    pipeline = build_pipeline(tmp_path, monkeypatch)
    for path in (tmp_path / "source").rglob("*.*"):
        os.utime(path, (time.time() - 3600,) * 2)
    return pipeline


@pytest.fixture
def with_a_broken_shard(pipeline: Pipeline) -> Pipeline:
    """A fourth landed with them, whose file is cut."""
    path = pipeline.directory / "source/letters/c.parquet"
    path.write_bytes((path.parent / "a.parquet").read_bytes()[:-100])
    os.utime(path, (time.time() - 3600,) * 2)
    return pipeline


@pytest.fixture
def live(pipeline: Pipeline, tmp_path: Path) -> Iterator[Live]:
    with live_system(tmp_path / "home") as live:
        yield live


def scored_by(pipeline: Pipeline) -> dict[str, set[str]]:
    """The selectors of every shard's scores, from the table."""
    rows = pipeline.rows("scores").select("domain", "shard", "selector_fingerprint").unique().to_dicts()
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(f"{row['domain']}.{row['shard']}", set()).add(row["selector_fingerprint"])
    return found


def scorings(instance: dg.DagsterInstance) -> Counter[str]:
    """How often each shard's scores were materialized."""
    records = instance.fetch_materializations(SCORES, limit=100).records
    return Counter(record.partition_key or "" for record in records)


def paid(pipeline: Pipeline) -> dict[str, Counter[str]]:
    """How many documents of every shard each selector has scored, in all runs together."""
    found: dict[str, Counter[str]] = {}
    for row in pipeline.rows("scoring_runs").to_dicts():
        by_selector = found.setdefault(row["selector_fingerprint"], Counter())
        by_selector[f"{row['domain']}.{row['shard']}"] += row["n_scored"] + row["n_resumed"]
    return found


def shards_of(run: dg.DagsterRun) -> tuple[str | None, str | None]:
    """The first and the last partition of a run."""
    ends = (run.tags.get("dagster/asset_partition_range_start"), run.tags.get("dagster/asset_partition_range_end"))
    return ends if any(ends) else (run.tags.get("dagster/partition"),) * 2


def ended_well(live: Live, instance: dg.DagsterInstance, run_id: str) -> None:
    def status() -> dg.DagsterRunStatus | None:
        run = instance.get_run_by_id(run_id)
        return run.status if run and run.is_finished else None

    assert live.wait(f"run {run_id}", status) is dg.DagsterRunStatus.SUCCESS


def scoring_process(instance: dg.DagsterInstance) -> tuple[str, int] | None:
    """Id and process of a scoring run that is at work."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if SCORES in (run.asset_selection or ()):
            for record in instance.all_logs(run.run_id):
                if (found := _PID.search(record.message)) is not None:
                    return run.run_id, int(found[1])
    return None


def mixed_by(pipeline: Pipeline) -> str:
    """The selector whose selection is in the training corpus; nothing where nothing was mixed yet."""
    if not pipeline.lake.root.exists(MANIFEST):
        return ""
    return str(Manifest.read(pipeline.lake.root).provenance["selector_fingerprint"])


def coverage(live: Live, pipeline: Pipeline) -> dict[str, int]:
    """Shards by state, those that there are, as the webserver shows them after a renewal."""
    pipeline.run(["score_coverage"])
    found = shown(live, "score_coverage")
    states = {name.removeprefix("shards_"): n for name, n in found.items() if name.startswith("shards_") and n}
    assert found["shards"] == sum(states.values()) == sum(row["shards"] for row in found["coverage"])
    return states


def test_a_night_in_which_much_goes_wrong_is_told_as_it_was(with_a_broken_shard: Pipeline, live: Live) -> None:
    with live.instance() as instance:
        pipeline = dataclasses.replace(with_a_broken_shard, instance=instance)
        first = shards_land_one_of_them_broken(live, pipeline)
        it_is_replaced_by_what_another_held(live, pipeline)
        second = the_selector_changes_and_a_run_is_killed(live, pipeline, first)
        live.wait("selection", lambda: set(pipeline.rows("selected_subset")["selector_fingerprint"]) == {second})
        live.wait("the mix", lambda: mixed_by(pipeline) == second)
        assert coverage(live, pipeline) == {"current": 3}
        assert shown(live, "score_coverage")["state"].startswith(
            f"**Every indexed document is scored by `{second[:12]}`**"
        )
        a_backfill_is_launched_by_mistake(live, pipeline)


def shards_land_one_of_them_broken(live: Live, pipeline: Pipeline) -> str:
    """The selector that then scores the others."""
    heads = live.materialize(*SELECTOR, config=PROBES)
    ended_well(live, pipeline.instance, heads)
    assert "detection on 6 probes will compute" in log_of(live, heads)
    live.wait("every shard indexed or refused", lambda: coverage(live, pipeline) == {"missing": 3, "failed": 1})
    (failed,) = shown(live, "score_coverage")["failed"]
    assert (failed["shard"], failed["failed"]) == (BROKEN, "indexing")
    assert "c.parquet" in failed["reason"]
    live.wait("its check", lambda: checked(live, "score_coverage") == {"every_shard_is_current": False})

    live.start_sensor("rescoring")
    fingerprint = current_fingerprint(pipeline.lake.root)
    live.wait("scores of every shard", lambda: scored_by(pipeline) == {key: {fingerprint} for key in SHARDS})
    live.wait("three materializations", lambda: scorings(pipeline.instance).total() >= 3)
    assert scorings(pipeline.instance) == Counter(SHARDS)
    assert coverage(live, pipeline) == {"current": 3, "failed": 1}
    measured = shown_by_partition(live, "attention_influence_scores")
    assert {key: made["documents_scored"] for key, made in measured.items()} == dict.fromkeys(SHARDS, 25)
    assert all(made["tokens_per_second"] > 0 and "mean_score" in made for made in measured.values())
    return fingerprint


def it_is_replaced_by_what_another_held(live: Live, pipeline: Pipeline) -> None:
    source = pipeline.directory / "source/letters"
    (source / "b.parquet").replace(source / "c.parquet")
    live.wait("the scores of the other shard", lambda: scorings(pipeline.instance)[BROKEN])
    assert coverage(live, pipeline) == {"current": 3, "source_gone": 1}
    assert shown_by_partition(live, "attention_influence_scores")[BROKEN]["documents_scored"] == 25
    retirement = live.materialize(config={}, job="retire_shards")
    ended_well(live, pipeline.instance, retirement)
    assert "retired letters.b: 0 documents, 25 scores" in log_of(live, retirement)
    assert coverage(live, pipeline) == {"current": 3}
    live.wait("its check", lambda: checked(live, "score_coverage") == {"every_shard_is_current": True})


def the_selector_changes_and_a_run_is_killed(live: Live, pipeline: Pipeline, first: str) -> str:
    """The selector by which everything is scored afterwards."""
    instance, done = pipeline.instance, scorings(pipeline.instance)
    zero = live.materialize("retrieval_heads", config={"retrieval_heads": {"config": {"mask": "zero"}}})
    ended_well(live, instance, zero)
    second = current_fingerprint(pipeline.lake.root)
    assert second != first
    killed, process = live.wait("a scoring run at work", lambda: scoring_process(instance))
    os.kill(process, signal.SIGKILL)
    assert coverage(live, pipeline).keys() <= {"stale", "running", "current", "failed"}
    told = shown(live, "score_coverage")
    assert all("killed" in row["reason"] for row in told.get("failed", []))  # until it is launched again
    assert told["state"].startswith(f"**Rescoring: `{first[:12]}` → `{second[:12]}`**") or told["shards_current"] == 3
    live.wait("scores by the new selector", lambda: scored_by(pipeline) == {key: {second} for key in RESHARDED})
    live.wait("all of them", lambda: not scorings(instance) < done + Counter(RESHARDED))
    assert scorings(instance) <= done + Counter(RESHARDED * 2)  # what the killed run finished is found current
    assert paid(pipeline) == {
        first: Counter(dict.fromkeys([*SHARDS, BROKEN], 25)),
        second: Counter(dict.fromkeys(RESHARDED, 25)),
    }
    run = instance.get_run_by_id(killed)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    again = instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": killed}))
    assert [shards_of(retried) for retried in again] == [shards_of(run)]
    return second


def a_backfill_is_launched_by_mistake(live: Live, pipeline: Pipeline) -> None:
    """And one of a shard whose file is gone."""
    before = shown(live, "score_coverage")
    (pipeline.directory / "source/notes/first.jsonl").unlink()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with (
        attninf_process("backfill", "letters.a", "notes.first", "--url", live.url, **pipes) as partly,
        attninf_process("backfill", BROKEN, "--url", live.url, **pipes) as mistake,
    ):
        for watching, code, end in [
            (mistake, 0, ["1 of 1 partitions done, 0 failed, 0 in progress"]),
            (partly, 3, ["the backfill ended as COMPLETED_FAILED", "failed: notes.first"]),
        ]:
            _, said = watching.communicate(timeout=400)
            assert watching.returncode == code, said
            assert said.splitlines()[-len(end) :] == end
        assert "1 of 2 partitions done, 1 failed, 0 in progress" in said
    nothing = shown_by_partition(live, "attention_influence_scores")[BROKEN]
    assert (nothing["documents_scored"], nothing["documents_reused"]) == (0, 25)
    assert "tokens_per_second" not in nothing  # it would be a point in the plots for which nothing was measured
    assert 0 <= nothing["share_selected"] <= 1
    of_shard = dg.AssetRecordsFilter(SCORES, asset_partitions=[BROKEN])
    (record,) = pipeline.instance.fetch_materializations(of_shard, 1).records
    assert f"{BROKEN}: all 25 scores are current: nothing to do" in log_of(live, record.run_id)
    assert coverage(live, pipeline) == {"current": 2, "source_gone": 1}
    after = shown(live, "score_coverage")
    assert (after["device_hours"], after["tokens_scored"]) == (before["device_hours"], before["tokens_scored"])


def attninf(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, arguments)


def targets(instance: dg.DagsterInstance, backfill: Result) -> list[str]:
    """The partitions of the backfill that a command launched."""
    launched = instance.get_backfill(backfill.stdout.strip())
    assert launched is not None
    assert launched.asset_backfill_data is not None
    assert launched.asset_selection == [SCORES]
    return sorted(launched.asset_backfill_data.target_subset.get_partitions_subset(SCORES).get_partition_keys())


def test_a_backfill_is_of_the_partitions_that_are_missing_or_stale(pipeline: Pipeline, tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    with dg.DagsterInstance.from_config(str(home)) as instance, live_system(home, daemon=False) as live:
        nothing_yet = attninf("backfill", "--all", "--url", live.url)
        assert nothing_yet.exit_code == 2
        assert "attention_influence_scores has no partitions yet" in nothing_yet.stderr
        instance.add_dynamic_partitions(CORPUS_SHARDS, SHARDS)
        pipeline = dataclasses.replace(pipeline, instance=instance)
        for key in SHARDS:
            pipeline.run(["raw_corpus"], key)
        pipeline.run(SELECTOR, config=PROBES)
        pipeline.run(["attention_influence_scores"], "letters.a")
        pipeline.run(["attention_influence_scores"], "notes.first")
        source = pipeline.directory / "source" / "letters"
        (source / "b.parquet").rename(source / "away")
        assert not pipeline.run(["attention_influence_scores"], "letters.b", raise_on_error=False).success
        (source / "away").rename(source / "b.parquet")

        def launched(*arguments: str) -> list[str]:
            result = attninf("backfill", *arguments, "--no-wait", "--url", live.url)
            assert result.exit_code == 0, result.output
            assert "daemon is not running" in result.stderr
            return targets(instance, result)

        assert launched("--missing") == ["letters.b"]  # it only ever failed
        fresh = attninf("backfill", "--stale", "--url", live.url)
        assert (fresh.exit_code, fresh.stdout) == (0, "")
        assert fresh.stderr == "none of the 3 partitions of attention_influence_scores is stale\n"
        pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
        pipeline.run(["attention_influence_scores"], "letters.a")
        assert launched("--stale") == ["notes.first"]
        assert launched("--all") == SHARDS
        assert launched("letters.b", "letters.a", "letters.b") == ["letters.a", "letters.b"]

        for arguments, wanted in [
            (["letters.c"], "attention_influence_scores has no partition 'letters.c'; near it: letters.b, letters.a"),
            (["--all", "--asset", "scores"], "there is no asset 'scores', or its code location is not loaded"),
            (["--all", "--asset", "retrieval_heads"], "asset 'retrieval_heads' has no partitions"),
        ]:
            refused = attninf("backfill", *arguments, "--url", live.url)
            assert refused.exit_code == 2
            assert refused.stderr.startswith(f"attninf backfill: {live.url}: {wanted}")

        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with attninf_process("backfill", "--all", "--url", live.url, **pipes) as watching:
            assert watching.stderr is not None
            until("the first progress", lambda: "partitions done" in watching.stderr.readline())  # type: ignore[union-attr]
            watching.send_signal(signal.SIGINT)
            said, left = watching.communicate(timeout=60)
        assert watching.returncode == 130, left
        assert left.splitlines()[-1].endswith(f"{live.url}/runs/b/{said.strip()}")
        assert "the backfill goes on" in left


def statuses(instance: dg.DagsterInstance, backfill: str) -> Counter[dg.DagsterRunStatus]:
    """The runs of a backfill by status."""
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
    return Counter(run.status for run in runs)


def has_ended(instance: dg.DagsterInstance, backfill_id: str) -> bool:
    """Whether this backfill has ended; sensors launch others beside it."""
    backfill = instance.get_backfill(backfill_id)
    return backfill is not None and backfill.status.value.startswith("COMPLETED")


def test_when_the_machine_goes_down_its_runs_are_taken_up_again(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_PARTITIONS_PER_RUN", "1")
    home = tmp_path / "home"
    prepare_home(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions(CORPUS_SHARDS, SHARDS)
        pipeline = dataclasses.replace(pipeline, instance=instance)
        for key in SHARDS:
            pipeline.run(["raw_corpus"], key)
        pipeline.run(SELECTOR, config=PROBES)

        def at_work() -> tuple[str, int] | None:
            """A scoring that holds the device, while others wait for it."""
            holders = instance.event_log_storage.get_concurrency_info("gpu").active_run_ids
            found = scoring_process(instance)
            waiting = statuses(instance, backfill)[dg.DagsterRunStatus.QUEUED]
            return found if found and found[0] in holders and waiting else None

        with live_system(home) as live:
            backfill = live.backfill("attention_influence_scores", SHARDS)
            killed, _ = live.wait("a scoring at work", at_work)
            live.kill()
        until("the death of the run's process", lambda: is_dead(home / "living_runs" / killed))
        assert statuses(instance, backfill)[dg.DagsterRunStatus.STARTED] == 1
        with live_system(home) as live:
            live.wait("the backfill's end", lambda: has_ended(instance, backfill), seconds=600)
        assert statuses(instance, backfill) == {dg.DagsterRunStatus.FAILURE: 1, dg.DagsterRunStatus.SUCCESS: 3}
        (retried,) = instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": killed}))
        assert retried.status is dg.DagsterRunStatus.SUCCESS
        fingerprint = current_fingerprint(pipeline.lake.root)
        assert scored_by(pipeline) == {key: {fingerprint} for key in SHARDS}
        assert paid(pipeline) == {fingerprint: Counter(dict.fromkeys(SHARDS, 25))}
        assert instance.event_log_storage.get_concurrency_info("gpu").active_run_ids == set()
