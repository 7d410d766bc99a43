"""Searches for a hyperparameter before training: plain functions over a program."""

from functrain.finders.batch_size import BatchSizes, find_batch_size
from functrain.finders.learning_rate import LearningRateCurve, find_lr

__all__ = ["BatchSizes", "LearningRateCurve", "find_batch_size", "find_lr"]
