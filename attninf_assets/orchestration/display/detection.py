"""Head detection while it is under way: its price, its progress and what it took, in the log and in the metadata."""

from collections.abc import Callable
from typing import Any

from attninf_assets.influence.detection import DetectionCost, DetectionPrice
from attninf_assets.orchestration.display.metadata import rounded


class DetectionReports:
    """Passes reports on to `tell` and keeps what of price and cost belongs into the metadata."""

    def __init__(self, tell: Callable[[object], None]) -> None:
        self._tell, self._kept = tell, dict[str, Any]()

    def __call__(self, report: object) -> None:
        """Tell the report; keep its figures, if it is of price or cost."""
        self._tell(report)
        if isinstance(report, DetectionPrice):
            self._kept |= {
                "tokens_of_detection": report.tokens,
                "tokens_of_evidence": report.evidence_tokens,
                "predicted_seconds_of_detection": rounded(report.seconds),
                "predicted_seconds_of_evidence": rounded(report.evidence_seconds),
            }
        elif isinstance(report, DetectionCost):
            self._kept |= {
                "seconds_of_detection": rounded(report.seconds),
                "seconds_of_evidence": rounded(report.evidence_seconds),
                "evidence_over_detection": rounded(report.ratio, digits=3),
            }

    def metadata(self) -> dict[str, Any]:
        """What was kept; nothing where no heads were detected."""
        return dict(self._kept)
