"""One line that says why a document is in: what a whole run ends with."""

from functools import partial

from attninf_assets.orchestration.connections.engine import load_selector_engine
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.store.query import connect

__all__ = ["reason_of_top_document"]


def reason_of_top_document(lake: LakeResource, corpus: CorpusResource, *, compute: bool) -> str | None:
    """Why the highest document of the first domain is in, and how to ask it of any other; None where none is selected.

    Without `compute` no model is loaded, and it is only said how to ask.
    """
    tables = lake.tables()
    with connect(tables, "selected_subset") as connection:
        top = connection.execute(
            "SELECT domain, doc_id FROM selected_subset ORDER BY domain, score DESC, doc_id DESC LIMIT 1"
        ).fetchone()
    if top is None:
        return None
    domain, doc_id = top
    asked = f"why is a document in? `attninf explain {domain} {doc_id}`"
    if not compute:
        return asked
    from attninf_assets.explaining.explanation import explain_document  # noqa: PLC0415 - torch is there by now
    from attninf_assets.explaining.showing import view_of  # noqa: PLC0415
    from attninf_assets.explaining.terminal import reason_line  # noqa: PLC0415

    try:
        explanation = explain_document(
            tables, corpus.open(), domain, doc_id, load=partial(load_selector_engine, lake), n_windows=1
        )
    except ValueError as error:  # the run itself is done
        return f"{asked}: {error}"
    return f"{asked}\n  {reason_line(view_of(explanation))}"
