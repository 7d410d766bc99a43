"""What a checkpoint's files say: the tree as JSON, tensors in files, and a manifest over all.

Nothing here opens a file; ``docs/checkpoint-format.md`` describes it.
"""
