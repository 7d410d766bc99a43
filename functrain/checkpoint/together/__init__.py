"""Save a state of which ranks hold parts: the very files that one process writes.

Every rank calls the same function. Rank 0 alone holds locks, creates the directory, writes the
manifest and renames; all ranks write ranges of the payload, and rank 0 goes on only after each has
synced its ranges. So a rank that is killed at any time leaves the older or the newer checkpoint.
"""
