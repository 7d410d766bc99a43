"""Checkpoints in a remote store: S3, GCS, Azure, SFTP and whatever else fsspec reaches."""

from functrain.checkpoint.remote.store import RemoteCheckpoints

__all__ = ["RemoteCheckpoints"]
