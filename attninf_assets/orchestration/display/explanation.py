"""An explanation in a run's page: the decision, the checks, and the strongest tokens with where they came from."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from attninf_assets.orchestration.display.metadata import records, rounded
from attninf_assets.orchestration.display.text import quoted

if TYPE_CHECKING:
    from attninf_assets.explaining.view import View

_MOST_LISTED = 12
_LONGEST = 2_000  # characters of the text that stand in the metadata


def explanation_metadata(view: "View", *, page: str) -> dict[str, Any]:
    """Metadata of the explanation; `page` is where its page lies. Nothing of the document is markup in it."""
    decisions = [
        {"selection": one.selection, "decision": "in" if one.is_in else "out", "reason": one.reason, "kept": one.kept}
        for one in view.verdicts
    ]
    raised = [
        {
            "rise": rounded(one.piece.rise),
            "loss_base": rounded(one.piece.losses[0]),
            "loss_reference": rounded(one.piece.losses[1]),
            "token": one.piece.visible,
            "before": one.before,
            "copied_from": "; ".join(
                f"{source.before}{source.visible}, {source.distance:,} back by {source.heads}"
                for source in one.sources
                if source.is_copied
            ),
        }
        for one in view.raised[:_MOST_LISTED]
    ]
    shown = "".join(piece.text for window in view.windows for piece in window.pieces)
    return {
        "page": dg.MetadataValue.path(page),
        "document": f"{view.domain} {view.doc_id}",
        "decisions": records(decisions),
        "facts": records([{"what": name, "value": value} for name, value in view.facts.items()]),
        "checks": records([{"agrees": agrees, "told": told} for agrees, told in view.findings]),
        "strongest_tokens": records(raised),
        "windows": view.part_shown or f"all {view.n_windows:,}",
        "text": dg.MetadataValue.md(quoted(shown[:_LONGEST] + ("…" if len(shown) > _LONGEST else ""))),
    }
