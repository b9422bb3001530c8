"""The columns of every Delta table, written once: names, types, and what each one means."""

import pyarrow as pa

__all__ = ["PARTITIONED_BY", "TABLES", "came_later", "description"]


def _field(name: str, type_: pa.DataType, meaning: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"description": meaning})


def _later(name: str, type_: pa.DataType, meaning: str) -> pa.Field:
    """A column that tables may lack which an older version wrote; its rows read as null."""
    return pa.field(name, type_, metadata={"description": meaning, "later": "yes"})


_DOC_ID = _field("doc_id", pa.string(), "identifier, unique within the domain")
_DOMAIN = _field("domain", pa.string(), "kind of source")
_SHARD = _field("shard", pa.string(), "slice of the domain; the partition key is <domain>.<shard>")
_SOURCE_URI = _field("source_uri", pa.string(), "file the row came from")
_SOURCE_ROW = _field("source_row", pa.int64(), "0-based row or line in that file")
_SOURCE_VERSION = _later("source_version", pa.string(), "size and time of that file when it was indexed")
_TEXT_SHA256 = _field("text_sha256", pa.string(), "sha256 of the text's UTF-8 bytes")
_N_BYTES = _field("n_bytes", pa.int64(), "length of the text in UTF-8 bytes")
_N_TOKENS = _field("n_tokens", pa.int64(), "the document's own tokens, start tokens not counted")
_FINGERPRINT = _field("selector_fingerprint", pa.string(), "sha256 of everything that decides a score")
_SCORE = _field("score", pa.float64(), "attention influence score: (loss_reference - loss_base) / loss_base")
_SELECTION = _field("selection", pa.string(), "name of the selection, as in the selections file; paper by default")

TABLES: dict[str, pa.Schema] = {
    "documents": pa.schema(
        [
            _DOC_ID,
            _DOMAIN,
            _SHARD,
            _SOURCE_URI,
            _SOURCE_ROW,
            _TEXT_SHA256,
            _N_BYTES,
            _SOURCE_VERSION,
        ]
    ),
    "quarantine": pa.schema(
        [
            _DOMAIN,
            _SHARD,
            _SOURCE_URI,
            _SOURCE_ROW.with_nullable(True).with_metadata(
                {"description": "0-based row or line in that file; null where the file as a whole was refused"}
            ),
            _field("reason", pa.string(), "why the row was refused"),
            _SOURCE_VERSION,
            _later("doc_id", pa.string(), "the row's identifier, where it has a valid one"),
            _later("held_by", pa.string(), "of a doc_id that another shard of the domain holds: that shard"),
            _later("excerpt", pa.string(), "how the text or line begins, control characters escaped"),
        ]
    ),
    "document_features": pa.schema(
        [
            _DOC_ID,
            _DOMAIN,
            _SHARD,
            _TEXT_SHA256,
            _N_BYTES,
            _field("n_words", pa.int64(), "words: what whitespace separates"),
            _field("repetition", pa.float64(), "share of its word 4-grams that stood in it before; 0 below 4 words"),
            _field("repeated_lines", pa.float64(), "share of its lines, blank ones apart, that stood in it before"),
            _field("zstd_ratio", pa.float64(), "bytes when compressed by zstd at level 3, by n_bytes; may pass 1"),
            _field("alphabetic", pa.float64(), "share of its characters that are letters, Unicode's category L"),
            _field(
                "duplicate_group",
                pa.string(),
                "the text_sha256, where another document of the domain has the very text; as of near_duplicates",
                nullable=True,
            ),
            _field(
                "near_duplicate_cluster",
                pa.string(),
                "least doc_id of the domain's documents that nearly have its text, where there are others; as of "
                "near_duplicates",
                nullable=True,
            ),
            _field("licence_markers", pa.int64(), "phrases of licences and copyright notices in it"),
            _field("log_markers", pa.int64(), "lines in it that begin as those of logs and tracebacks do"),
            _field("minhash_bands", pa.list_(pa.int64()), "a hash of each band of its MinHash; none below 5 words"),
            _field("features_version", pa.int64(), "version of the definitions of these features"),
        ]
    ),
    "retrieval_probes": pa.schema(
        [
            _field("probe_id", pa.int64(), "position in the probe set"),
            _field("text", pa.string(), "the whole probe, answer included"),
            _field("token_ids", pa.list_(pa.int64()), "the probe as the selector's tokens"),
            _field("answer_start", pa.int64(), "first token of the answer"),
            _field("answer_end", pa.int64(), "one past the answer's last token"),
            _field("span_start", pa.int64(), "first token of the queried value inside the JSON object"),
            _field("n_pairs", pa.int64(), "key-value pairs in the JSON object"),
            _field("query_index", pa.int64(), "position of the queried pair in the object, 0-based"),
        ]
    ),
    "head_scores": pa.schema(
        [
            _FINGERPRINT,
            _field("model_digest", pa.string(), "sha256 of the selector's weight files"),
            _field("layer", pa.int64(), "decoder layer, 0-based"),
            _field("head", pa.int64(), "query head in the layer, 0-based"),
            _field("retrieval_score", pa.float64(), "mean over probes of the answer tokens copied"),
            _field("retrieval_score_sd", pa.float64(), "standard deviation over probes"),
            _field("is_retrieval_head", pa.bool_(), "masked in the reference model"),
        ]
    ),
    "scores": pa.schema(
        [
            _DOC_ID,
            _DOMAIN,
            _SHARD,
            _TEXT_SHA256,
            _N_TOKENS,
            _field("loss_base", pa.float64(), "base model's mean next-token cross-entropy, nats per token"),
            _field("loss_reference", pa.float64(), "the same with the retrieval heads masked"),
            _SCORE.with_nullable(True),
            _FINGERPRINT,
            _field("scored_at", pa.timestamp("us", tz="UTC"), "when the document was scored"),
            _later(
                "window_scores",
                pa.list_(pa.float64()),
                "the score of each of its windows in order, null where a window has no loss to speak of; null as a "
                "whole for documents of one window, and for those scored before there was this column",
            ),
        ]
    ),
    "scoring_runs": pa.schema(
        [
            _DOMAIN,
            _SHARD,
            _FINGERPRINT,
            _field("n_scored", pa.int64(), "documents that this run scored"),
            _field("n_resumed", pa.int64(), "documents that interrupted runs had scored"),
            _field("n_reused", pa.int64(), "documents whose stored score was current"),
            _field("tokens_scored", pa.int64(), "tokens of the documents that this run scored"),
            _field("seconds", pa.float64(), "from the run's first look at the partition to its commit"),
            _field("device", pa.string(), "what scored: cpu, cuda:0, …; null where nothing had to be", nullable=True),
            _field("scores_version", pa.int64(), "version of the table scores that the run committed"),
            _field("committed_at", pa.timestamp("us", tz="UTC"), "when it did, by its own clock"),
        ]
    ),
    "thresholds": pa.schema(
        [
            _SELECTION,
            _DOMAIN,
            _field("fraction", pa.float64(), "wanted fraction of the domain, of its documents that may be selected"),
            _field("budget", pa.string(), "what the fraction counts: documents or tokens"),
            _field("threshold_score", pa.float64(), "score of the last document kept"),
            _field("threshold_doc_id", pa.string(), "its doc_id; breaks ties at the threshold"),
            _field("n_documents", pa.int64(), "documents with a score"),
            _field("n_selected", pa.int64(), "documents at or above the threshold"),
            _field("tokens_total", pa.int64(), "tokens of the documents with a score"),
            _field("tokens_selected", pa.int64(), "tokens of the documents selected"),
            _FINGERPRINT,
            _field("n_eligible", pa.int64(), "documents with a score that pass the filters"),
            _field("tokens_eligible", pa.int64(), "tokens of these"),
            _field("wanted", pa.int64(), "documents or tokens asked for; null where a fraction was", nullable=True),
            _field("threshold_key", pa.float64(), "ordering key of the last document kept: the score, by default"),
            _field("definition", pa.string(), "JSON: the selection as it was defined"),
            _field("definition_digest", pa.string(), "sha256 of the definition"),
            _field("rule", pa.string(), "JSON: what was fitted to the domain, and the cuts beside the threshold"),
        ]
    ),
    "selected_subset": pa.schema(
        [
            _SELECTION,
            _DOC_ID,
            _DOMAIN,
            _SHARD,
            _SCORE,
            _N_TOKENS,
            _FINGERPRINT,
            _field("order_key", pa.float64(), "what the document was ranked by: the score, by default"),
            _field("copies", pa.int64(), "how often it is taken: 1, unless its band has another weight"),
        ]
    ),
    "score_bands": pa.schema(
        [
            _DOMAIN,
            _field("band_number", pa.int64(), "1 for the best scores, 20 for the lowest"),
            _field(
                "band", pa.string(), "the twentieth of the domain's tokens, in percent from the best score down: 0-5"
            ),
            _field(
                "n_documents", pa.int64(), "documents in the band, 0 where a larger one of the band above reaches over"
            ),
            _field("n_tokens", pa.int64(), "their tokens"),
            _field("lowest_score", pa.float64(), "score of the band's last document", nullable=True),
            _field("lowest_doc_id", pa.string(), "its doc_id; breaks ties at the border", nullable=True),
            _field("highest_score", pa.float64(), "score of the band's first document", nullable=True),
            _field("mean_loss_base", pa.float64(), "over documents, nats per token", nullable=True),
            _field("mean_loss_reference", pa.float64(), "over documents, nats per token", nullable=True),
            _field("mean_tokens", pa.float64(), "of a document", nullable=True),
            _field(
                "mean_repetition", pa.float64(), "over documents where it is known; null where of none", nullable=True
            ),
            _FINGERPRINT,
        ]
    ),
}

PARTITIONED_BY: dict[str, list[str]] = {
    "documents": ["domain", "shard"],
    "quarantine": ["domain", "shard"],
    "document_features": ["domain", "shard"],
    "retrieval_probes": [],
    "head_scores": ["selector_fingerprint"],
    "scores": ["domain", "shard"],
    "scoring_runs": [],
    "thresholds": ["selection"],
    "selected_subset": ["selection", "domain"],
    "score_bands": [],
}


def came_later(field: pa.Field) -> bool:
    """Whether a table that an older version wrote may lack the column."""
    return b"later" in (field.metadata or {})


def description(field: pa.Field) -> str:
    """What a column means, as written in its schema."""
    return field.metadata[b"description"].decode()
