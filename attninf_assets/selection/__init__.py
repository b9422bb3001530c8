"""The selection: exact score thresholds per domain, and the documents at or above them."""
