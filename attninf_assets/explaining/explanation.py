"""All that answers why a document is in or out: tables, text and losses, compared with each other."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow.compute as pc

from attninf_assets.corpus.discovery import Corpus
from attninf_assets.corpus.stored_index import indexed_from
from attninf_assets.corpus.texts import FoundText, few_texts
from attninf_assets.explaining.lookup import StoredDocument, find_document
from attninf_assets.explaining.standing import Rank, Verdict, rank_in_domain, verdicts
from attninf_assets.influence.document_score import attention_influence_score
from attninf_assets.influence.engine import Engine
from attninf_assets.influence.explanation import N_WINDOWS, ExplainedText, explain_text
from attninf_assets.influence.scoring import SCORE_TOLERANCE
from attninf_assets.influence.selector import Selector
from attninf_assets.selector.stored import current_selector
from attninf_assets.store.tables import Lake

__all__ = ["Explanation", "Finding", "explain_document"]


@dataclass(frozen=True)
class Finding:
    """A comparison of what is stored with what is there, and whether the two agree."""

    agrees: bool
    told: str


@dataclass(frozen=True)
class Explanation:
    """Why a document is in or out. `explained` is None where its text cannot be had."""

    stored: StoredDocument
    selector: Selector
    rank: Rank | None
    verdicts: list[Verdict]
    findings: list[Finding]
    text: str | None
    explained: ExplainedText | None

    @property
    def is_sound(self) -> bool:
        """Whether the text is the indexed one, and the score follows from it as far as that was looked at."""
        return all(finding.agrees for finding in self.findings)


def explain_document(
    lake: Lake,
    sources: Corpus,
    domain: str,
    doc_id: str,
    *,
    load: Callable[[Selector], Engine],
    first_window: int = 0,
    n_windows: int = N_WINDOWS,
) -> Explanation:
    """Look the document up, read its text and compute its tokens' losses under the selector in use.

    `load` is called once it is known that there is something to compute. Raises `ValueError` for a document that is not
    there, saying where it was looked for and which ids are near, and where there is no selector in use yet.
    """
    stored = find_document(lake, domain, doc_id)
    selector = current_selector(lake.root)
    found = _text(lake, sources, stored)
    explained = None
    if found.text is not None:
        explained = explain_text(load(selector), selector, found.text, first_window=first_window, n_windows=n_windows)
    return Explanation(
        stored=stored,
        selector=selector,
        rank=rank_in_domain(lake, stored, selector_fingerprint=selector.fingerprint),
        verdicts=verdicts(lake, stored, selector_fingerprint=selector.fingerprint),
        findings=[_of_text(found), *_of_score(stored, selector, explained)],
        text=found.text,
        explained=explained,
    )


def _text(lake: Lake, sources: Corpus, stored: StoredDocument) -> FoundText:
    if stored.indexed is None:
        return FoundText(stored.doc_id, None, "documents has it no more: its text is not known")
    try:
        key = f"{stored.domain}.{stored.shard}"
        shard = sources.find(key, indexed_from=partial(indexed_from, lake)).shard
    except ValueError as error:
        return FoundText(stored.doc_id, None, str(error))
    where = {"domain": stored.domain, "shard": stored.shard}
    row = lake.read("documents", where=where, only=pc.field("doc_id") == stored.doc_id)
    [found] = few_texts(shard, row, storage_options=sources.storage_options)
    return found


def _of_text(found: FoundText) -> Finding:
    if found.problem is not None:
        return Finding(False, found.problem)
    return Finding(True, "the text is the one that was indexed: its sha256 is the same")


def _of_score(stored: StoredDocument, selector: Selector, explained: ExplainedText | None) -> list[Finding]:
    """Whether the stored score is of this text and selector, and the one that its tokens make."""
    row = stored.scored
    if row is None:
        return [Finding(True, "no score is stored yet")]
    if stored.indexed is not None and row["text_sha256"] != stored.indexed["text_sha256"]:
        return [Finding(False, "the stored score is of another text than is indexed: it is stale")]
    if row["selector_fingerprint"] != selector.fingerprint:
        return [Finding(False, "the stored score is by another selector than the one in use: it is stale")]
    if explained is None:
        return []
    if not explained.is_whole:
        n = len(explained.windows)
        told = f"{n} of {explained.n_windows:,} windows were computed, so the stored score is not compared"
        return [Finding(True, told)]
    base, reference = explained.losses
    score, stored_score = attention_influence_score(base, reference), row["score"]
    tolerance = SCORE_TOLERANCE[selector.numeric_class]
    agrees = (
        score is stored_score is None
        if score is None or stored_score is None
        else abs(score - stored_score) <= tolerance
    ) and explained.n_tokens == row["n_tokens"]
    told = f"computed anew from these tokens the score is {_shown(score)}, stored is {_shown(stored_score)}"
    end = f", the same within {tolerance:g}" if agrees else f": they differ by more than {tolerance:g}"
    return [Finding(agrees, told + end)]


def _shown(score: float | None) -> str:
    return "null" if score is None else f"{score:.6f}"
