"""Metadata and log lines that several assets show alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt

from attninf_assets.corpus.printable import printable
from attninf_assets.orchestration.display.plots import answer_loss_bars, head_heat_map
from attninf_assets.selector.stored import Detection


def rounded(value: float, *, digits: int = 4) -> float:
    """The number with as many significant digits, as people read it."""
    return float(f"{value:.{digits}g}")


def quantiles(values: npt.ArrayLike) -> dg.TableMetadataValue:
    """Count, minimum, 1 %, quartiles, 99 %, maximum and mean of the finite values, as a one-row table."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    names = {"min": 0.0, "p1": 0.01, "p25": 0.25, "median": 0.5, "p75": 0.75, "p99": 0.99, "max": 1.0}
    row: dict[str, Any] = {"n": len(finite)}
    if len(finite):
        row |= {name: rounded(float(np.quantile(finite, q))) for name, q in names.items()}
        row["mean"] = rounded(float(finite.mean()))
    return records([row])


def records(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """Rows as a table in the UI, what acts in a string escaped; column types follow the first row."""
    kinds = {bool: "bool", int: "int", float: "float", str: "string"}
    first = rows[0] if rows else {}
    schema = dg.TableSchema([dg.TableColumn(name, kinds.get(type(value), "string")) for name, value in first.items()])
    shown = [{name: printable(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in rows]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in shown], schema=schema)


def as_json(value: Any) -> dg.JsonMetadataValue:
    """JSON in the UI and in terminals, what acts in any of its strings and keys escaped."""
    return dg.MetadataValue.json(_shown(value))


def reporter(log: dg.DagsterLogManager, subject: str | None = None) -> Callable[[object], None]:
    """Writes progress, of a `subject` where there are several, into the run's log."""
    return lambda progress: log.info(printable(progress if subject is None else f"{subject}: {progress}"))


def detection_story(found: Detection) -> list[str]:
    """The heads found and what masking them did, as lines of a log."""
    detection, evidence = found.detection, found.evidence
    base, masked = evidence.base, evidence.reference
    return [
        f"{len(detection.retrieval_heads):,} retrieval heads of {detection.scores_LH.size:,}, found on "
        f"{detection.n_counted:,} of {detection.n_probes:,} probes: {', '.join(map(str, detection.retrieval_heads))}",
        f"answer loss on {evidence.n_probes:,} probes, nats per token: base model {base.loss:.2f}, these heads masked "
        f"{masked.loss:.2f}, random heads masked {base.loss + evidence.random_effect:.2f} (median)",
        f"answer tokens right: base model {base.token_accuracy:.0%}, these heads masked {masked.token_accuracy:.0%}",
    ]


def detection_metadata(found: Detection) -> dict[str, Any]:
    """What a person wants to see of a head detection: the map, the chosen heads, and whether they matter."""
    detection, evidence = found.detection, found.evidence
    controls = {f"random set {n} masked": c.loss for n, c in enumerate(evidence.random_sets, start=1)}
    chosen = [
        {
            "head": str(head),
            "retrieval_score": round(float(detection.scores_LH[head.layer, head.index]), 4),
            "sd_over_probes": round(float(detection.deviations_LH[head.layer, head.index]), 4),
        }
        for head in detection.retrieval_heads
    ]
    return {
        "heat_map": head_heat_map(detection.scores_LH, detection.retrieval_heads),
        "answer_loss": answer_loss_bars(
            {"base model": evidence.base.loss, "retrieval heads masked": evidence.reference.loss, **controls}
        ),
        "effect_of_retrieval_heads_nats": rounded(evidence.effect),
        "median_effect_of_random_sets_nats": rounded(evidence.random_effect),
        "dominating_heads": ", ".join(evidence.dominating) or "none",
        "retrieval_heads": records(chosen),
        "retrieval_scores": quantiles(detection.scores_LH),
        "probes": detection.n_probes,
        "probes_counted": detection.n_counted,
        "probes_of_evidence": evidence.n_probes,
        "base_token_accuracy": rounded(detection.token_accuracy),
        "base_exact_match": rounded(detection.exact_match),
        "masked_token_accuracy": rounded(evidence.reference.token_accuracy),
    }


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        shown: dict[str, Any] = {}
        for key, content in value.items():
            name, number = printable(key), 1
            while (
                told := name if number == 1 else f"{name} ({number})"
            ) in shown:  # two that differ in what acts alone
                number += 1
            shown[told] = _shown(content)
        return shown
    if isinstance(value, Sequence):
        return [_shown(one) for one in value]
    return value
