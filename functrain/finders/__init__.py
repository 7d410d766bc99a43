"""Searches for a learning rate or a batch size before training: plain functions of a program."""

from functrain.finders.batch_size import BatchSizes, find_batch_size
from functrain.finders.learning_rate import LearningRateCurve, find_lr

__all__ = ["BatchSizes", "LearningRateCurve", "find_batch_size", "find_lr"]
