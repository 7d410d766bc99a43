"""The format of a checkpoint's files: the tree as JSON, tensors in files, one manifest.

Nothing here opens a file; ``docs/checkpoint-format.md`` describes it.
"""
