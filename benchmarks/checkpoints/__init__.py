"""Checkpoints against other ways to save the same bytes; ``python -m benchmarks.checkpoints``."""
