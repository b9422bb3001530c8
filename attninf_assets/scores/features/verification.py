"""What must hold of a partition's features, looked up in the tables alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

__all__ = ["feature_faults"]


def feature_faults(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many documents are at fault, by what is; from the views `documents` and `document_features` of a shard."""
    (counts,) = connection.execute(
        """
        WITH per_document AS (SELECT doc_id, text_sha256, count(*) AS n FROM document_features GROUP BY ALL)
        SELECT (SELECT count(*) FROM documents ANTI JOIN per_document USING (doc_id, text_sha256)),
               (SELECT count(*) FROM per_document ANTI JOIN documents USING (doc_id, text_sha256)),
               (SELECT count(*) FROM per_document WHERE n > 1),
               (SELECT count(*) FROM document_features
                WHERE NOT (repetition BETWEEN 0 AND 1 AND repeated_lines BETWEEN 0 AND 1 AND alphabetic BETWEEN 0 AND 1
                           AND zstd_ratio > 0 AND n_words >= 0 AND licence_markers >= 0 AND log_markers >= 0)),
               (SELECT count(*) FROM document_features JOIN documents USING (doc_id, text_sha256)
                WHERE document_features.n_bytes <> documents.n_bytes)
        """
    ).fetchall()
    names = ("without_features", "features_of_no_document", "repeated", "out_of_range", "of_another_length")
    return dict(zip(names, counts, strict=True))
