"""Checkpoints beside other ways to save the same bytes; ``python -m benchmarks.checkpoints``."""
