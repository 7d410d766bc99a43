"""A train step of functrain beside those of other trainers; ``python -m benchmarks.steps``."""
