"""What a whole run made, for a terminal."""

from attninf_assets.selector.stored import current_detection
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake

__all__ = ["summary"]


def summary(tables: Lake, *, n_scored: int, seconds: float) -> str:
    """The selections by domain, the retrieval heads with their evidence, and where the training corpus lies."""
    found = current_detection(tables.root)
    with connect(tables, "thresholds") as connection:
        rows = connection.execute(
            "SELECT selection, domain, n_documents, tokens_total, threshold_score, n_selected, tokens_selected "
            "FROM thresholds ORDER BY selection, domain"
        ).fetchall()
    several = len({selection for selection, *_ in rows}) > 1
    named = [(f"{selection}: {domain}" if several else domain, *rest) for selection, domain, *rest in rows]
    width = max(len("domain"), *(len(row[0]) for row in named))
    by_domain = [
        f"{domain:<{width}}  {documents:>9,}  {tokens:>8,}  {threshold:>9.4f}  {selected:>8,}  {selected_tokens:>15,}"
        for domain, documents, tokens, threshold, selected, selected_tokens in named
    ]
    evidence = found.evidence
    random_loss = evidence.base.loss + evidence.random_effect
    heads = ", ".join(map(str, found.detection.retrieval_heads))
    scored = f"{n_scored:,} documents scored" if n_scored else "every score was current: nothing rescored"
    return "\n".join(
        [
            f"\n{'domain':<{width}}  documents    tokens  threshold  selected  selected tokens",
            *by_domain,
            f"\nretrieval heads: {heads}",
            f"  answer loss on the probes: base model {evidence.base.loss:.2f}, retrieval heads masked "
            f"{evidence.reference.loss:.2f}, random heads masked {random_loss:.2f} (median)",
            f"  answer tokens right: base model {evidence.base.token_accuracy:.0%}, "
            f"retrieval heads masked {evidence.reference.token_accuracy:.0%}",
            f"training corpus: {tables.root.uri}/training_corpus (manifest.json names its files)",
            f"{scored} in {seconds:.0f} s; look at it all with `make ui`",
        ]
    )
