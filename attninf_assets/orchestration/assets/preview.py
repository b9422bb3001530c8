"""The asset `rescoring_preview`: what scoring by the selector in use would take, before it is spent."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from attninf_assets.corpus.printable import printable
from attninf_assets.influence.runtime.progress import told_duration
from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.selector import retrieval_heads
from attninf_assets.orchestration.connections.resources import CostResource, LakeResource
from attninf_assets.orchestration.display.catalog import OWNERS
from attninf_assets.orchestration.display.metadata import records, rounded
from attninf_assets.scores.cost import Approval
from attninf_assets.scores.estimates import (
    DomainEstimate,
    LargeDocument,
    Rates,
    estimates_by_domain,
    largest_documents,
    measured_rates,
    together,
)
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect

_LARGEST = 5  # documents that are shown
_STANDS_OUT = 0.1  # of the bytes to score, by one document


class PreviewConfig(dg.Config):
    """Run configuration of `rescoring_preview`: the approval, and rates to use instead of the measured ones."""

    confirm: bool = Field(default=False, description="Approve a rescoring above the spending limit.")
    tokens_per_second: float | None = Field(
        default=None,
        description="Of one device. Unset: as measured in the selector's latest scoring runs, before the first of them "
        "in the trial when it was made.",
    )
    bytes_per_token: float | None = Field(
        default=None, description="In every domain. Unset: as measured in each domain's scored documents or the trial."
    )


@dg.asset(deps=[raw_corpus, retrieval_heads], group_name="scores", owners=OWNERS, kinds={"duckdb"})
def rescoring_preview(
    context: dg.AssetExecutionContext, config: PreviewConfig, lake: LakeResource, cost: CostResource
) -> dg.MaterializeResult:
    """An estimate of what scoring all documents without a current score takes: tokens, device hours, money.

    It lets somebody see and approve the cost before it is spent, by domain, and names documents that are a large part
    of it. Above the spending limit it fails until it is materialized with `confirm`; where a limit is set, no run
    scores anything by a selector whose preview was not approved. Tokens are estimated from bytes, at rates that the
    selector's own runs had, or its trial before the first of them. All figures are in the metadata.
    """
    tables = lake.tables()
    fingerprint = current_fingerprint(tables.root)
    with connect(tables, "documents", "scores", "scoring_runs") as connection:
        measured = measured_rates(connection, tables.root, selector_fingerprint=fingerprint)
        rates = measured.given(tokens_per_second=config.tokens_per_second, bytes_per_token=config.bytes_per_token)
        domains = estimates_by_domain(
            connection,
            selector_fingerprint=fingerprint,
            rates=rates,
            price_per_device_hour=cost.price_per_device_hour,
        )
        largest = largest_documents(connection, selector_fingerprint=fingerprint, at_most=_LARGEST)
    estimate = together(domains)
    refusal = None if config.confirm else cost.refusal(estimate)
    Approval(fingerprint, datetime.now(UTC).isoformat(), estimate, approved=refusal is None).publish(tables.root)
    standing_out = _standing_out(largest)
    metadata = {
        "by_domain": records([_row(domain, rates) for domain in domains]),
        "stands_out": standing_out or "no document holds a tenth of the bytes",
        **_known(asdict(estimate)),
        "price_per_device_hour": cost.price_per_device_hour,
        "spending_limit": "none" if cost.spending_limit is None else cost.spending_limit,
        **_known({"bytes_per_token": rates.bytes_per_token, "tokens_per_second": rates.tokens_per_second}),
        "measured_on": rates.measured_on,
        **({"largest_documents": records([_large(document) for document in largest])} if largest else {}),
        "confirmed": config.confirm,
        "selector_fingerprint": fingerprint,
    }
    if standing_out:
        context.log.warning(standing_out)
    if refusal is not None:
        raise dg.Failure(
            f"{refusal}; materialize rescoring_preview with confirm: true to go ahead",
            metadata=metadata,
            allow_retries=False,
        )
    took = (
        "" if estimate.device_hours is None else f" in about {told_duration(3600 * estimate.device_hours)} of a device"
    )
    context.log.info(
        f"{estimate.documents:,} documents in {estimate.partitions:,} shards would be scored{took}; "
        f"speed measured on {rates.measured_on}"
    )
    return dg.MaterializeResult(metadata=metadata)


def _row(domain: DomainEstimate, rates: Rates) -> dict[str, Any]:
    """A domain's estimate, as people read it; first what is decided by, as the page shows the first columns alone."""
    of_domain = rates.bytes_per_token_in(domain.domain)
    return {
        "domain": domain.domain,
        "tokens": "unknown" if domain.tokens is None else f"{domain.tokens:,}",
        "device_hours": "unknown" if domain.device_hours is None else f"{domain.device_hours:,.3g}",
        "money": "unknown" if domain.money is None else f"{domain.money:,.2f}",
        "documents": domain.documents,
        "shards": domain.partitions,
        "megabytes": rounded(domain.n_bytes / 1e6),
        "bytes_per_token": "unknown" if of_domain is None else f"{of_domain:.2f}",
    }


def _standing_out(largest: Sequence[LargeDocument]) -> str:
    """The documents that alone hold a tenth or more of what is to be scored, in a sentence; empty where none does."""
    named = [
        f"{printable(document.doc_id)} in {document.domain}.{document.shard} is {document.share:.0%} of the bytes"
        for document in largest
        if document.share >= _STANDS_OUT and len(largest) > 1
    ]
    return "; ".join(named)


def _large(document: LargeDocument) -> dict[str, Any]:
    return {
        "share_of_bytes": f"{document.share:.1%}",
        "megabytes": rounded(document.n_bytes / 1e6),
        "shard": f"{document.domain}.{document.shard}",
        "doc_id": document.doc_id,
    }


def _known(values: dict[str, Any]) -> dict[str, Any]:
    shown = {name: rounded(value) if isinstance(value, float) else value for name, value in values.items()}
    return {name: "unknown" if value is None else value for name, value in shown.items()}
