"""Why a document is in or out, for a person to read."""
