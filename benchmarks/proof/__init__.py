"""Kill runs and damage checkpoints of functrain and of other libraries, and see how they go on.

python -m benchmarks.proof [resume damage kill] [--only functrain Lightning]

Every contender trains the same small network on the same data in the way its own documentation
describes. Contenders that are not installed are left out. `docs/proof.md` has the results.
"""
