"""The device at work: memory budgets, overlapped reading and copying, progress, locks."""
