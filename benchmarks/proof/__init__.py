"""Kill runs of functrain and of other libraries, damage what they saved, and resume them.

python -m benchmarks.proof [resume damage kill power world] [--only functrain Lightning]

Every contender trains the same small network on the same data in the way its own documentation
describes. Contenders that are not installed are left out. `docs/proof.md` has the results.
"""
