"""Save a state of which ranks hold parts: the very files that one process writes.

Every rank calls the same function. Rank 0 alone locks, writes and renames, as a single process
does; the others send it the bytes that it lacks. So a rank that is killed at any time leaves the
older or the newer checkpoint.
"""
