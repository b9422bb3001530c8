"""The command `attninf`. One function per verb; what a verb does lives below, and is imported when the verb is used.

Exit codes: 0 all is done; 2 bad input, or a server that does not answer: one line says what; 3 done, but in part (rows
were refused, partitions failed); 130 interrupted.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attninf_assets.corpus.printable import printable
from attninf_assets.influence.model.head import Mask
from attninf_assets.store.uris import redacted, require_no_secret

if TYPE_CHECKING:
    from attninf_assets.corpus.documents import Refusal, Shard
    from attninf_assets.influence.model.head import Head
    from attninf_assets.influence.selector import Selector
    from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
    from attninf_assets.orchestration.runs.backfills import Backfill
    from attninf_assets.store.damage import Damage
    from attninf_assets.upkeep.repair import RepairPlan

BAD_INPUT = 2
IN_PART = 3
INTERRUPTED = 130  # as a shell says of SIGINT
_N_SENTENCES = 10_000  # candidates for the probes' values, as many as the asset retrieval_probes takes

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Select reasoning-intensive pretraining data with AttentionInfluence.",
)


@app.command()
def score(
    source: Annotated[str, typer.Argument(metavar="IN", help="Documents: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.")],
    model: Annotated[
        str, typer.Option("--selector", help="The model: a Hugging Face directory, a .gguf file, org/name@revision.")
    ],
    out: Annotated[Path, typer.Option(help="Where the scores go: .parquet or .jsonl.")],
    text_column: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    id_column: Annotated[str | None, typer.Option(help="Column of the ids. Unset: <file>:<row>.")] = None,
    heads: Annotated[
        Path | None,
        typer.Option(help="A selector as --save-heads wrote it, or a JSON list of [layer, head]. Unset: detected."),
    ] = None,
    save_heads: Annotated[
        Path | None, typer.Option(help="Write the selector used to this file, before anything is scored.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of a window. Unset: 4096.")] = None,
    mask: Annotated[Mask | None, typer.Option(help="What a masked head does. Unset: uniform.")] = None,
    numeric_class: Annotated[
        Literal["auto", "float32", "bfloat16", "float8"] | None,
        typer.Option(help="Of the operands of products. Unset: bfloat16 on CUDA, float32 elsewhere."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the probes. Unset: 0.")] = None,
    probes: Annotated[int | None, typer.Option(help="How many probes. Unset: 16; the paper has 800.")] = None,
    probe_tokens: Annotated[
        int | None, typer.Option(help="Tokens of a probe. Unset: 512, or more where none fits; the paper has 4096.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT, and the file of --save-heads.")] = False,
) -> None:
    """Score the documents of one file: doc_id, n_tokens, loss_base, loss_reference, score.

    Without --heads, the retrieval heads are detected with sentences of the texts themselves. OUT appears whole or not
    at all. Exit code 0: every row is scored; 3: OUT is written, but rows were refused (row and reason are on stderr);
    2: bad input, OUT is not written.
    """
    from attninf_assets.scores.file_scores import (
        documents_of,
        read_through,
        require_apart,
        require_free,
        require_output,
        shard_of_file,
        write_scores,
        write_text,
    )

    with _problems_told("score"):
        require_no_secret(model)
        shard = shard_of_file(source, text_column=text_column, id_column=id_column)
        require_output(out, source=source, force=force)
        if save_heads is not None:
            require_free(save_heads, force=force)
            require_apart(save_heads, {"IN": source, "OUT": out, "--selector": model})
        settings = _given(max_tokens=max_tokens, mask=mask, numeric_class=numeric_class)
        detection = _given(seed=seed, n_probes=probes, probe_tokens=probe_tokens)
        known = None if heads is None else _known_heads(heads, settings, detection)
        contents = read_through(shard, on_refusal=_tell_refusal)
        if not contents.n_documents:
            raise ValueError(f"{source}: none of its {contents.n_refused:,} rows can be scored")

        from attninf_assets.selector.library import score_texts

        selector = _selector(model, known, shard, settings, detection)
        _tell(f"retrieval heads: {', '.join(map(str, selector.heads))}; selector {selector.fingerprint}")
        if save_heads is not None:
            write_text(selector.to_json() + "\n", save_heads)
        of_texts, of_ids = tee(documents_of(shard, contents))
        scores = score_texts(
            model,
            selector,
            (document.text for document in of_texts),
            doc_ids=(document.doc_id for document in of_ids),
            n_bytes=contents.n_bytes,
            on_progress=_tell,
        )
        write_scores(scores, out, selector=selector)
    _tell(f"{contents.n_documents:,} documents scored: {out}")
    if contents.n_refused:
        _tell(f"{contents.n_refused:,} rows refused")
        raise typer.Exit(IN_PART)


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Option(help="Run configuration in YAML, as --fields prints it. Unset: all defaults.")
    ] = None,
    fields: Annotated[
        bool, typer.Option("--fields", help="Print every field that --config may set, at its default, and leave.")
    ] = False,
) -> None:
    """Materialize every asset once, in this process: index, build the selector, score, select, mix.

    Where ATTNINF_BUDGET is set and the cost of scoring is above it, nothing is scored until the run configuration has
    `confirm: true` for rescoring_preview.


    Corpus, model and root are those of the settings (ATTNINF_*); the runs appear in the instance of DAGSTER_HOME. What
    is current is left as it is. Exit code 0: all is done; 3: done, but some failed (they are named); 2: bad input,
    nothing was begun.
    """
    import time

    from attninf_assets.definitions import definitions
    from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
    from attninf_assets.orchestration.display.reason import reason_of_top_document
    from attninf_assets.orchestration.display.summary import summary
    from attninf_assets.orchestration.runs.whole_run import (
        instance_of_home,
        launchpad_fields,
        materialize_everything,
        read_run_config,
    )

    with _problems_told("run"):
        project = definitions()
        if fields:
            typer.echo(launchpad_fields(project), nl=False)
            return
        started = time.monotonic()
        chosen = {} if config is None else read_run_config(config)
        with instance_of_home() as instance:
            try:
                came = materialize_everything(project, instance, run_config=chosen, say=lambda line: _tell(f"\n{line}"))
            except KeyboardInterrupt:
                _tell("interrupted: run again, it goes on from what is done")
                raise typer.Exit(INTERRUPTED) from None
    resources = project.resources or {}
    lake, corpus = resources["lake"], resources["corpus"]
    assert isinstance(lake, LakeResource)
    assert isinstance(corpus, CorpusResource)
    if came.selected:
        typer.echo(summary(lake.tables(), n_scored=came.n_scored, seconds=time.monotonic() - started))
        if reason := reason_of_top_document(lake, corpus, compute=came.n_scored > 0):
            typer.echo(reason)
    for what, why in came.failed.items():
        _tell(f"failed: {what}: {why}")
    if came.failed:
        raise typer.Exit(IN_PART)


@app.command()
def backfill(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEYS", help="Partitions, <domain>.<shard>.")] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Those never materialized.")] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Those whose inputs changed since: the shard, or the selector.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    asset: Annotated[str, typer.Option(help="Which asset's partitions.")] = "attention_influence_scores",
    url: Annotated[str, typer.Option(help="The webserver, as `make ui` starts it.")] = "http://127.0.0.1:3000",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Launch it and leave; its id is printed.")] = False,
) -> None:
    """Launch a backfill on the running system and watch it to its end.

    Give KEYS or one of --missing, --stale and --all. The backfill's id is printed to stdout, progress to stderr. Exit
    code 0: every partition succeeded, or there was nothing to do; 3: some failed (they are named), or it was canceled;
    2: bad input, or the server does not answer; 130: interrupted, while the backfill goes on.
    """
    from attninf_assets.orchestration.connections.webserver import Webserver, WebserverError
    from attninf_assets.orchestration.runs.backfills import PartitionedAsset, backfills_are_run

    with _problems_told("backfill", (ValueError, WebserverError)):
        if [bool(keys), missing, stale, every].count(True) != 1:
            raise ValueError("give partition keys, or one of --missing, --stale and --all")
        server = Webserver(url)
        partitioned = PartitionedAsset.at(server, asset)
        n_keys = f"{len(partitioned.keys):,} partitions of {asset}"
        if not partitioned.keys:
            raise ValueError(f"{url}: {asset} has no partitions yet; the sensor new_shards registers them")
        if missing or stale:
            chosen = partitioned.missing() if missing else partitioned.stale()
        else:
            chosen = partitioned.only(keys or partitioned.keys)
        if not chosen:
            _tell(f"none of the {n_keys} is {'missing' if missing else 'stale'}")
            return
        launched = partitioned.launch(chosen)
        typer.echo(launched.backfill_id)
        _tell(f"{len(chosen):,} of the {n_keys}: {launched.url}")
        if not backfills_are_run(server):
            _tell("the server's backfill daemon is not running: the backfill waits until it is")
        if not no_wait:
            _watch(launched)


@app.command()
def repair(
    root: Annotated[str | None, typer.Option(help="Storage root. Unset: ATTNINF_ROOT.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Mend it. Unset: only say what is damaged.")] = False,
) -> None:
    """Find damaged and missing files under the root, and mend what they held.

    Everything is read once. A damaged file of a table's log is put back from its copy. One of its data is set aside
    under `damaged/`, never deleted, and taken out of its table; shards whose index it held are indexed again from their
    source. What else is to be made again is named with its command. Nothing else is touched. Exit code 0: nothing is
    damaged, or all of it is mended; 3: something is, which was not to be mended or cannot be; 2: bad input.
    """
    from functools import partial

    from attninf_assets.corpus.stored_index import indexed_from
    from attninf_assets.upkeep.inspection import find_damage
    from attninf_assets.upkeep.repair import mend, plan_of, reindex

    with _problems_told("repair", (ValueError, RuntimeError)):
        lake, corpus = _connections(root)
        tables = lake.tables()
        if not tables.root.exists("tables"):
            raise ValueError(f"{tables.root.uri}: no tables there; give --root or set ATTNINF_ROOT")
        damages = _tell_damages(find_damage(tables, thorough=True))
        plan = plan_of(tables, damages)
        unindexed: dict[str, Exception] = {}
        if apply:
            mend(tables, plan)
            if plan.put_back:
                _tell_plan(plan, done=True)
                damages = _tell_damages(find_damage(tables, thorough=True))
                plan = plan_of(tables, damages)
                mend(tables, plan)
            if plan.reindex:
                sources = corpus.open()
                unindexed = reindex(
                    tables,
                    plan,
                    find=partial(sources.find, indexed_from=partial(indexed_from, tables)),
                    storage_options=sources.storage_options,
                )
    _tell_plan(plan, done=apply)
    for key, error in unindexed.items():
        typer.echo(f"{key} could not be indexed again: {error}")
    if plan.is_empty:
        _tell("nothing is damaged" if not apply else "nothing is damaged any more")
    elif not apply or unindexed or plan.beyond:
        raise typer.Exit(IN_PART)


def _tell_damages(damages: "list[Damage]") -> "list[Damage]":
    for damage in damages:
        typer.echo(printable(f"damaged: {damage}"))
    return damages


def _tell_plan(plan: "RepairPlan", *, done: bool) -> None:
    for line in plan.told(done=done):
        typer.echo(printable(line))


@app.command()
def verify(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEYS", help="Partitions, <domain>.<shard>.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every shard with a score.")] = False,
    sample: Annotated[int, typer.Option(min=1, help="Documents of each partition.")] = 2,
    seed: Annotated[int, typer.Option(help="Another seed draws other documents.")] = 0,
    root: Annotated[str | None, typer.Option(help="Storage root. Unset: ATTNINF_ROOT.")] = None,
) -> None:
    """Compute some stored scores once more, the slow way, and compare.

    Loads the selector in use on this machine's device. Costs two forward passes for every window of a drawn document.
    Exit code 0: all agree; 3: some do not, they are named; 2: bad input.
    """
    from functools import partial

    from attninf_assets.corpus.stored_index import indexed_from
    from attninf_assets.orchestration.connections.engine import load_selector_engine
    from attninf_assets.scores.recomputation import recompute_sample
    from attninf_assets.selector.stored import current_selector
    from attninf_assets.store.retirement import stored_shards

    with _problems_told("verify"):
        if bool(keys) == every:
            raise ValueError("give partition keys, or --all")
        lake, corpus = _connections(root)
        tables, sources = lake.tables(), corpus.open()
        selector = current_selector(tables.root)
        n_compared, differing = 0, 0
        for key in keys or sorted(f"{domain}.{shard}" for domain, shard in stored_shards(tables)):
            for row in recompute_sample(
                tables,
                sources.find(key, indexed_from=partial(indexed_from, tables)).shard,
                selector,
                n=sample,
                seed=seed,
                load=partial(load_selector_engine, lake, selector, self_check=True),
                storage_options=sources.storage_options,
            ):
                n_compared += 1
                if not row.agrees:
                    differing += 1
                    typer.echo(f"{key}: {row}")
    _tell(f"{n_compared:,} scores computed once more, {differing:,} differ")
    if differing:
        raise typer.Exit(IN_PART)


@app.command("what-if")
def what_if(
    domain: Annotated[str | None, typer.Option(help="One domain alone. Unset: all.")] = None,
    fractions: Annotated[
        list[float] | None, typer.Option("--fraction", help="May be given several times. Unset: 12 from 0.01 to 0.7.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Rows as JSON, a line each.")] = False,
    root: Annotated[str | None, typer.Option(help="Storage root. Unset: ATTNINF_ROOT.")] = None,
) -> None:
    """Show what would be selected at other fractions, by documents and by tokens. Nothing is written.

    Documents, tokens, threshold, mean length and repetition, and what is in common with each selection that there is.
    Exit code 0: shown; 2: bad input.
    """
    from dataclasses import asdict

    from attninf_assets.orchestration.display.selection_text import what_if_tables
    from attninf_assets.selection.scored import open_scored
    from attninf_assets.selection.what_if import FRACTIONS
    from attninf_assets.selection.what_if import what_if as what_would_be

    with _problems_told("what-if"):
        lake, _ = _connections(root)
        with open_scored(lake.tables(), "selected_subset", domain=domain) as scored:
            rows = what_would_be(
                scored.connection,
                selector_fingerprint=scored.selector_fingerprint,
                fractions=fractions or FRACTIONS,
                with_repetition=scored.with_repetition,
            )
    if as_json:
        _echo_json(asdict(row) for row in rows)
    else:
        typer.echo(what_if_tables(rows))


@app.command()
def bands(
    out: Annotated[Path | None, typer.Argument(metavar="[OUT]", help="Where --export writes.")] = None,
    export: Annotated[
        Literal["olmo", "olmix"] | None, typer.Option(help="Write a mixture file of OLMo-core or of olmix.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Of --export: how often ranges of bands are read, in YAML: {0-5: 0, 5-100: 1}.")
    ] = "{0-100: 1}",
    tokens_under: Annotated[
        str, typer.Option(help="Of --export: where the tokenized bands lie, each in <domain>/<band>/.")
    ] = "tokens",
    domain: Annotated[str | None, typer.Option(help="One domain alone. Unset: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Rows as JSON, a line each.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    root: Annotated[str | None, typer.Option(help="Storage root. Unset: ATTNINF_ROOT.")] = None,
) -> None:
    """Show twenty bands of equal tokens for each domain, by score; 0-5 holds the best. No table is written.

    With --export, a file by which a trainer mixes the bands at those weights. Exit code 0: shown, or written; 2: bad
    input, OUT is not written.
    """
    from attninf_assets.orchestration.display.selection_text import bands_tables
    from attninf_assets.scores.file_scores import require_free, write_text
    from attninf_assets.selection.band_mixture import mixture_file, read_weights
    from attninf_assets.selection.bands import score_bands
    from attninf_assets.selection.scored import open_scored

    with _problems_told("bands"):
        if (out is None) != (export is None):
            raise ValueError("give --export with the file that it writes: attninf bands --export olmo OUT.yaml")
        weight_of = read_weights(weights)
        require_no_secret(tokens_under)
        if out is not None:
            require_free(out, force=force)
        lake, _ = _connections(root)
        with open_scored(lake.tables(), domain=domain) as scored:
            rows = score_bands(
                scored.connection,
                selector_fingerprint=scored.selector_fingerprint,
                with_repetition=scored.with_repetition,
            ).to_pylist()
        if out is not None and export is not None:
            write_text(mixture_file(rows, weights=weight_of, tokens_under=tokens_under, to=export), out)
            _tell(f"bands of {len({row['domain'] for row in rows})} domains: {out}")
            return
    if as_json:
        _echo_json(rows)
    else:
        typer.echo(bands_tables(rows))


@app.command()
def compare(
    before: Annotated[str, typer.Argument(metavar="A", help="[ROOT::]NAME, NAME@v12 or NAME@fingerprint:0a1b.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    domain: Annotated[str | None, typer.Option(help="One domain alone. Unset: all.")] = None,
    top: Annotated[int, typer.Option(min=0, help="Documents that entered, and left, to show of each domain.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Domains as JSON, a line each.")] = False,
    root: Annotated[str | None, typer.Option(help="Storage root of names without one. Unset: ATTNINF_ROOT.")] = None,
) -> None:
    """Compare two selections: overlap, rank correlation, and which documents entered and left from A to B.

    A version is one of the table selected_subset, and can be read until maintenance takes it. Those that moved most are
    shown with the beginning of their text. Exit code 0: shown; 2: bad input.
    """
    from dataclasses import asdict
    from functools import partial

    from attninf_assets.corpus.stored_index import indexed_from
    from attninf_assets.orchestration.display.selection_text import comparison_tables
    from attninf_assets.selection.comparison import compare as compare_selections
    from attninf_assets.selection.documents_to_read import beginnings
    from attninf_assets.selection.references import find_selection

    with _problems_told("compare"):
        _, corpus = _connections(root)
        a, b = (
            find_selection(named, open_lake=lambda place: _connections(place or root)[0].tables())
            for named in (before, after)
        )
        found = compare_selections(a, b, top=top, domain=domain)
        excerpts: dict[tuple[str, str], str] = {}
        for side, moved in ((a, [one.left for one in found]), (b, [one.entered for one in found])):
            if any(moved):
                sources = corpus.open()
                excerpts |= beginnings(
                    side.lake,
                    [one for of_domain in moved for one in of_domain],
                    lambda key: sources.find(key, indexed_from=partial(indexed_from, side.lake)).shard,  # noqa: B023
                    storage_options=sources.storage_options,
                )
    if as_json:
        _echo_json(asdict(row) | {"before": str(a), "after": str(b)} for row in found)
    else:
        typer.echo(f"A: {printable(a)}\nB: {printable(b)}\n\n{comparison_tables(found, excerpts)}")


def _echo_json(rows: "Iterable[dict[str, Any]]") -> None:
    """A line for each row; JSON itself escapes what would act in a terminal."""
    for row in rows:
        typer.echo(json.dumps(row))


@app.command()
def explain(
    domain: Annotated[str, typer.Argument(help="The document's domain.")],
    doc_id: Annotated[str, typer.Argument(help="Its id.")],
    out: Annotated[
        Path | None, typer.Option(help="Write a page for a browser to this file. Unset: to the terminal.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, on stdout.")] = False,
    windows: Annotated[int, typer.Option(min=1, help="Windows of a long document that are explained.")] = 4,
    first_window: Annotated[int, typer.Option(min=1, help="The first of them.")] = 1,
    root: Annotated[str | None, typer.Option(help="Storage root. Unset: ATTNINF_ROOT.")] = None,
) -> None:
    """Say why a document is in or out: where it stands, and its text by how much each token's loss rises.

    Loads the selector in use on this machine's device, and computes both losses of each token anew. Exit code 0: all
    is as it is stored; 3: the text or its score is not, which is said; 2: bad input, or there is no such document.
    """
    from functools import partial

    from attninf_assets.explaining.explanation import explain_document
    from attninf_assets.explaining.output import to_json, to_page
    from attninf_assets.explaining.showing import view_of
    from attninf_assets.explaining.terminal import print_explanation
    from attninf_assets.orchestration.connections.engine import load_selector_engine

    with _problems_told("explain"):
        if as_json and out is not None:
            raise ValueError("--json goes to stdout, --out writes a page: give one of them")
        lake, corpus = _connections(root)
        explanation = explain_document(
            lake.tables(),
            corpus.open(),
            domain,
            doc_id,
            load=partial(load_selector_engine, lake),
            first_window=first_window - 1,
            n_windows=windows,
        )
        view = view_of(explanation)
        if out is not None:
            out.write_text(to_page(view), encoding="utf-8")
            _tell(f"written: {out}")
        elif as_json:
            typer.echo(to_json(view))
        else:
            from rich.console import Console

            print_explanation(view, Console())
    if not view.is_sound:
        raise typer.Exit(IN_PART)


def _connections(root: str | None) -> "tuple[LakeResource, CorpusResource]":
    """The lake, under `root` if that is given, and the corpus, as the environment says. Raises `ValueError`."""
    from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
    from attninf_assets.orchestration.connections.settings import read_settings, resources_from

    settings = read_settings()
    resources = resources_from(settings if root is None else settings.model_copy(update={"root": root}))
    lake, corpus = resources["lake"], resources["corpus"]
    assert isinstance(lake, LakeResource)
    assert isinstance(corpus, CorpusResource)
    return lake, corpus


def _watch(launched: "Backfill") -> None:
    """Progress until the backfill's end. Exits where not all of it succeeded, or the watching was interrupted."""
    try:
        for progress in launched.watch():
            _tell(progress)
    except KeyboardInterrupt:
        _tell(f"no longer watching: the backfill goes on; look at it, or cancel it, at {launched.url}")
        raise typer.Exit(INTERRUPTED) from None
    if not progress.succeeded:
        _tell(f"the backfill ended as {progress.status}{f': {progress.error}' if progress.error else ''}")
        for key in launched.failed():
            _tell(f"failed: {key}")
        raise typer.Exit(IN_PART)


def _known_heads(heads: Path, settings: dict[str, Any], detection: dict[str, Any]) -> "Selector | tuple[Head, ...]":
    """What the heads' file holds. Raises `ValueError` for options that would then do nothing."""
    from attninf_assets.influence.selector import Selector
    from attninf_assets.selector.heads_file import read_heads

    known = read_heads(heads)
    settled = detection | settings if isinstance(known, Selector) else detection
    if settled:
        option = next(iter(settled)).replace("n_probes", "probes").replace("_", "-")
        raise ValueError(f"--{option} {next(iter(settled.values()))}: {heads} has settled that; leave it out")
    return known


def _selector(
    model: str,
    known: "Selector | tuple[Head, ...] | None",
    shard: "Shard",
    settings: dict[str, Any],
    detection: dict[str, Any],
) -> "Selector":
    """The selector as known, with the heads known, or with heads detected on sentences of the shard."""
    from attninf_assets.corpus.sentences import sample_sentences
    from attninf_assets.influence.selector import Selector
    from attninf_assets.selector.library import detect_selector, selector_of

    if isinstance(known, Selector):
        return known
    if known is not None:
        return selector_of(model, known, **settings)
    sentences = sample_sentences([shard], n=_N_SENTENCES, seed=detection.get("seed", 0))
    _tell(f"detecting the retrieval heads with {len(sentences):,} sentences of the texts")
    return detect_selector(model, sentences, **settings, **detection, on_progress=_tell)


def _given(**options: object) -> dict[str, Any]:
    """The options that were set."""
    return {name: value for name, value in options.items() if value is not None}


def _tell_refusal(refusal: "Refusal") -> None:
    _tell(printable(f"{refusal.source_uri}: row {refusal.source_row} refused: {refusal.reason}"))


def _tell(line: object) -> None:
    """To stderr: what is asked for, if anything, is alone on stdout."""
    typer.echo(printable(line, lines=True), err=True)


@contextmanager
def _problems_told(verb: str, problems: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """These, and files that cannot be had, end the command with one line and no traceback."""
    try:
        yield
    except problems as error:
        _tell(f"attninf {verb}: {redacted(error)}")
        raise typer.Exit(BAD_INPUT) from None
    except OSError as error:
        said = str(error).replace("\n", " ")
        _tell(f"attninf {verb}: {said if error.filename is None else f'{error.filename}: {error.strerror}'}")
        raise typer.Exit(BAD_INPUT) from None


if __name__ == "__main__":
    app()
