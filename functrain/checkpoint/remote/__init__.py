"""Checkpoints in a remote store: S3, GCS, Azure, SFTP and others that fsspec supports."""

from functrain.checkpoint.remote.store import RemoteCheckpoints

__all__ = ["RemoteCheckpoints"]
