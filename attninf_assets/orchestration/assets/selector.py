"""The assets `selector_model`, `retrieval_probes` and `retrieval_heads`: a small pretrained LM becomes the selector."""

import json
from dataclasses import asdict
from functools import partial
from typing import Literal

import dagster as dg
from pydantic import Field

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.printable import printable
from attninf_assets.corpus.sentences import sample_sentences
from attninf_assets.influence.detection import DETECTION_VERSION
from attninf_assets.influence.model.window import MAX_TOKENS
from attninf_assets.influence.probes import probes_digest
from attninf_assets.orchestration.assets.trial import tried
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource, SelectorResource
from attninf_assets.orchestration.display.catalog import (
    DELTA_TABLE,
    DEVICE_TIME,
    HUGGING_FACE_DIRECTORY,
    OWNERS,
    table_metadata,
)
from attninf_assets.orchestration.display.detection import DetectionReports
from attninf_assets.orchestration.display.metadata import (
    as_json,
    detection_metadata,
    detection_story,
    quantiles,
    reporter,
    rounded,
)
from attninf_assets.orchestration.display.text import quoted
from attninf_assets.orchestration.runs.partitions import GPU_POOL
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.selector.model_files import local_directory
from attninf_assets.selector.probe_plan import PLANS, PlanName, evidence_for
from attninf_assets.selector.stored import (
    head_scores_table,
    pinned_model,
    probes_from_table,
    probes_table,
    publish_selector,
)
from attninf_assets.store.uris import redacted

_N_SENTENCES = 10_000  # candidates for the probes' values


@dg.asset(
    deps=["pretrained_model"],
    group_name="selector",
    owners=OWNERS,
    tags=HUGGING_FACE_DIRECTORY,
    kinds={"huggingface", "pytorch"},
    code_version="1",
)
@transient_faults_retried
def selector_model(
    context: dg.AssetExecutionContext, selector: SelectorResource, lake: LakeResource
) -> dg.MaterializeResult:
    """The weights, config and tokenizer of the LM that scores: a Hugging Face directory, `selectors/<model_digest>/`.

    It is pinned, as scores can be compared only where one and the same model made them: what happens to the source
    later changes nothing. Weights come from safetensors or GGUF, never from pickles, and no code that travels with a
    model is run.
    """
    from attninf_assets.selector.building import pin_selector_model

    root = lake.storage_root()
    pinned = pin_selector_model(root, selector.resolved())
    context.log.info(f"{pinned.source} is pinned as {root.uri}/{pinned.directory}")
    config = json.loads(root.read_bytes(f"{pinned.directory}/config.json"))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(pinned.digests.model),
        metadata={
            "source": pinned.source,
            "dagster/uri": f"{root.uri}/{pinned.directory}",
            "model_digest": pinned.digests.model,
            "tokenizer_digest": pinned.digests.tokenizer,
            "architecture": printable(config["model_type"]),
            "config": as_json(config),
        },
    )


class ProbeConfig(dg.Config):
    """Run configuration of `retrieval_probes`: number, length and seed of the probes."""

    plan: Literal["auto", "small", "paper"] = Field(
        default="auto",
        description="small: 16 probes of 512 tokens, which take minutes on a CPU; paper: 800 of 4096, which take hours "
        "there. auto: paper where the probes are built on a machine with a CUDA device, small elsewhere and for the "
        "sample selector. With machines of both kinds, name one.",
    )
    n_probes: int | None = Field(default=None, description="How many probes. Unset: as many as the plan has.")
    probe_tokens: int | None = Field(
        default=None,
        description="Tokens of a probe, answer included, at most the model's context. Unset: as the plan has it; the "
        "small one doubles them until the smallest probe has room.",
    )
    seed: int = Field(default=0, description="Everything about the probes follows from it.")


@dg.asset(
    deps=["source_files", selector_model],
    group_name="selector",
    owners=OWNERS,
    tags=DELTA_TABLE,
    kinds={"deltalake", "python"},
    code_version="1",
    metadata=table_metadata("retrieval_probes"),
)
@transient_faults_retried
def retrieval_probes(
    context: dg.AssetExecutionContext,
    config: ProbeConfig,
    selector: SelectorResource,
    corpus: CorpusResource,
    lake: LakeResource,
) -> dg.MaterializeResult:
    """A row for each probe, a synthetic retrieval prompt: its text, its tokens and where the answer stands.

    Probes find the retrieval heads: an answer can only be copied from the probe's context, so heads that copy show
    themselves. They are 3-shot key-passage prompts (arXiv 2505.07293). Values are sentences from the corpus's own
    files, sampled when this is materialized and then left standing: new shards never change the selector.
    """
    from attninf_assets.influence.runtime.devices import choose_device
    from attninf_assets.selector.building import probes_for_model, probes_that_fit

    tables = lake.tables()
    directory = local_directory(tables.root, pinned_model(tables.root).directory, cache=lake.model_cache())
    sources = corpus.open()
    shards, unreadable = sources.shards(), dict[str, str]()
    sources.require_files(shards)

    def pass_over(shard: Shard, error: ValueError) -> None:
        unreadable[shard.key] = printable(redacted(error))
        context.log.warning(f"{shard.key} is passed over: {unreadable[shard.key]}")

    sentences = sample_sentences(
        shards,
        n=_N_SENTENCES,
        seed=config.seed,
        storage_options=sources.storage_options,
        pass_over=pass_over,
    )
    plan = selector.default_plan(choose_device().type) if config.plan == "auto" else config.plan
    size = PLANS[plan]
    n_probes = size.n_probes if config.n_probes is None else config.n_probes
    try:
        if config.probe_tokens is None and plan == "small":
            probes = probes_that_fit(
                directory, sentences, n_probes=n_probes, at_least=size.probe_tokens, seed=config.seed
            )
        else:
            tokens = size.probe_tokens if config.probe_tokens is None else config.probe_tokens
            probes = probes_for_model(directory, sentences, n_probes=n_probes, probe_tokens=tokens, seed=config.seed)
    except ValueError as error:
        if unreadable:
            error.add_note(f"{len(unreadable):,} files could not be read: {'; '.join(unreadable.values())}")
        raise
    version = tables.replace("retrieval_probes", probes_table(probes))
    n_tokens = sum(len(probe.token_ids) for probe in probes)
    context.log.info(
        f"{len(probes):,} probes of {n_tokens:,} tokens built from {len(sentences):,} sentences of the corpus"
    )
    story = plan_story(config, plan)
    context.log.info(story)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(probes_digest(probes)),
        metadata={
            "dagster/row_count": len(probes),
            "tokens": n_tokens,
            "plan": plan,
            "sizes": story,
            "sentences": len(sentences),
            "files_passed_over": len(unreadable),
            **({"passed_over": as_json(unreadable)} if unreadable else {}),
            "first_probe": dg.MetadataValue.md(quoted(probes[0].text)),
            "pairs_per_probe": quantiles([p.n_pairs for p in probes]),
            "answer_tokens": quantiles([p.answer_length for p in probes]),
            "dagster/uri": tables.root.table_uri("retrieval_probes"),
            "delta_version": version,
        },
    )


def plan_story(config: ProbeConfig, plan: PlanName) -> str:
    """Which sizes were taken, why, and how to have others."""
    given = [name for name in ("n_probes", "probe_tokens") if getattr(config, name) is not None]
    if len(given) == 2:
        return "the numbers of the launchpad, n_probes and probe_tokens"
    but = f", with {given[0]} as given" if given else ""
    if config.plan != "auto":
        return f"the plan {plan!r}, as asked for{but}"
    other = {"small": "paper", "paper": "small"}[plan]
    size = PLANS[other]  # type: ignore[index]
    return (
        f"the plan {plan!r}, the default on this device or for this selector{but}; for {size.n_probes:,} probes of "
        f"{size.probe_tokens:,} tokens materialize retrieval_probes with `plan: {other}`"
    )


class HeadConfig(dg.Config):
    """Run configuration of `retrieval_heads`: which heads are masked and how, and the settings of scoring."""

    head_fraction: float = Field(default=0.05, description="Share of all heads that are masked, rounded up.")
    mask: Literal["uniform", "zero"] = Field(
        default="uniform", description="What a masked head does: attend uniformly, or output zero."
    )
    max_tokens: int = Field(
        default=MAX_TOKENS, description="Tokens of a window of a long document; bounded by the model's context."
    )
    numeric_class: Literal["auto", "float32", "bfloat16", "float8"] = Field(
        default="auto",
        description="Of the operands of products; all else is float32. auto: bfloat16 on CUDA; on a CPU the class of "
        "the selector in use, for a new model bfloat16 if the CPU is made for it and the ranking survives it, or else "
        "float32. float8 (Hopper): only after `benchmarks.bench_fidelity --in-use` has shown that your selector's "
        "ranking survives it.",
    )
    n_evidence_probes: int | None = Field(
        default=None,
        description="On how many of the probes masking the heads is held against masking random ones. Unset: 3 in 16 "
        "probes, at most 64; so evidence takes less time than detection.",
    )
    n_random_sets: int | None = Field(
        default=None, description="How many random head sets. Unset: 3, from 256 probes on 5."
    )
    n_audit_probes: int | None = Field(
        default=None,
        description="On how many probes of the evidence heads are masked one by one, to name one that carries most of "
        "the effect. Unset: 1 in 32 probes, from 1 to 8.",
    )


@dg.asset(
    deps=[selector_model, retrieval_probes],
    group_name="selector",
    owners=OWNERS,
    tags={**DELTA_TABLE, **DEVICE_TIME},
    kinds={"deltalake", "pytorch"},
    code_version=str(DETECTION_VERSION),
    pool=GPU_POOL,
    metadata=table_metadata("head_scores"),
)
@transient_faults_retried
def retrieval_heads(
    context: dg.AssetExecutionContext, config: HeadConfig, corpus: CorpusResource, lake: LakeResource
) -> dg.MaterializeResult:
    """A row for each attention head: how much of the probes' answers it copies, and whether it is a retrieval head.

    Masking the retrieval heads, the top 5 % unless configured otherwise, makes the reference model, without which there
    is no score. The table is `tables/head_scores`. The data version is the selector's fingerprint, the only thing that
    decides whether a score is current. With a new selector some documents of the corpus's files are scored for a few
    seconds, so that the preview of what scoring costs knows how fast that is.
    """
    from attninf_assets.influence.engine import load_engine
    from attninf_assets.influence.model.pretrained import choose_numeric_class
    from attninf_assets.influence.runtime.devices import choose_device, claim_device, device_name
    from attninf_assets.selector.building import HeadSettings, build_default_selector, build_selector

    tables = lake.tables()
    model = pinned_model(tables.root)
    claim_device()
    device = choose_device()
    auto = config.numeric_class == "auto"
    probes = probes_from_table(tables.read("retrieval_probes"))
    evidence = evidence_for(
        len(probes),
        n_evidence_probes=config.n_evidence_probes,
        n_random_sets=config.n_random_sets,
        n_audit_probes=config.n_audit_probes,
    )
    directory = local_directory(tables.root, model.directory, cache=lake.model_cache())
    said = DetectionReports(reporter(context.log))
    built = (build_default_selector if auto else build_selector)(
        tables.root,
        model.digests,
        probes,
        HeadSettings(
            head_fraction=config.head_fraction,
            mask=config.mask,
            max_tokens=config.max_tokens,
            numeric_class=choose_numeric_class(device) if auto else config.numeric_class,  # type: ignore[arg-type]
        ),
        directory=directory,
        evidence=evidence,
        device=device,
        memory=lake.engine_memory(),
        on_progress=said,
    )
    if built.reused:
        context.log.info("model, probes and settings are those of an earlier detection: its heads are used again")
    for line in detection_story(built.detection):
        context.log.info(line)
    fingerprint = built.selector.fingerprint
    head_scores = head_scores_table(built.selector, built.detection.detection)
    tables.replace("head_scores", head_scores, where={"selector_fingerprint": fingerprint})
    publish_selector(tables.root, built.selector, built.detection)
    load = partial(
        load_engine,
        directory,
        numeric_class=built.selector.numeric_class,
        max_tokens=config.max_tokens,
        device=device,
        memory=lake.engine_memory(),
        model_digest=model.digests.model,
    )
    trial = tried(context.log, tables.root, built.selector, corpus, load=load, device=device_name(device))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(fingerprint),
        metadata={
            **detection_metadata(built.detection),
            "detection_reused": built.reused,
            **said.metadata(),
            "evidence_plan": as_json(asdict(evidence)),
            **({} if trial is None else {"trial": str(trial), "tokens_per_second": rounded(trial.tokens_per_second)}),
            "dagster/row_count": len(head_scores),
            "dagster/uri": tables.root.table_uri("head_scores"),
            "selector_fingerprint": fingerprint,
            "selector": as_json(json.loads(built.selector.to_json())),
        },
    )


build_selector_job = dg.define_asset_job(
    "build_selector",
    selection=dg.AssetSelection.assets(selector_model, retrieval_probes, retrieval_heads),
    description="Pin the model, build probes, detect the retrieval heads.",
)
