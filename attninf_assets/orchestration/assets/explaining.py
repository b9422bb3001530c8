"""The job `explain_document`: why a document is in or out, as a page under the root and in short in the run."""

import hashlib
from functools import partial

import dagster as dg
from pydantic import Field

from attninf_assets.orchestration.connections.engine import load_selector_engine
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.display.explanation import explanation_metadata
from attninf_assets.orchestration.runs.partitions import GPU_POOL


class ExplanationConfig(dg.Config):
    """Run configuration of `explain_document`: which document, and how much of a long one."""

    domain: str = Field(description="The document's domain.")
    doc_id: str = Field(description="Its id, as the tables have it.")
    windows: int = Field(default=4, ge=1, description="Windows of a long document that are explained.")
    first_window: int = Field(default=1, ge=1, description="The first of them.")


@dg.op(pool=GPU_POOL)
def explain(
    context: dg.OpExecutionContext, config: ExplanationConfig, corpus: CorpusResource, lake: LakeResource
) -> None:
    """Writes the page below `explanations/` and shows what it comes to as metadata of the output.

    The document's tokens are computed anew under the selector in use. Raises `ValueError` where there is no such
    document, naming what comes near.
    """
    from attninf_assets.explaining.explanation import explain_document
    from attninf_assets.explaining.output import to_page
    from attninf_assets.explaining.showing import view_of
    from attninf_assets.explaining.terminal import reason_line

    tables = lake.tables()
    explanation = explain_document(
        tables,
        corpus.open(),
        config.domain,
        config.doc_id,
        load=partial(load_selector_engine, lake),
        first_window=config.first_window - 1,
        n_windows=config.windows,
    )
    view = view_of(explanation)
    name = hashlib.sha256(f"{config.domain}\0{config.doc_id}".encode()).hexdigest()[:16]
    path = f"explanations/{config.domain}/{name}.html"
    tables.root.write_bytes(path, to_page(view).encode())
    context.log.info(reason_line(view))
    context.add_output_metadata(explanation_metadata(view, page=f"{tables.root.uri}/{path}"))


@dg.job(name="explain_document")
def explain_document() -> None:
    """Say why a document is in or out: where it stands, and which tokens its score comes from."""
    explain()
