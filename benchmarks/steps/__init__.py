"""A train step of functrain against those of other trainers; ``python -m benchmarks.steps``."""
