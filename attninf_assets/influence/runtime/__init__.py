"""Use of the device: its choice and lock, token budgets, overlapped reading and copying, progress."""
