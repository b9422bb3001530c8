"""Verification of a loaded model: fast paths are compared with slow ones before anything is scored."""
