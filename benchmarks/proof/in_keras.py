"""Keras on PyTorch, with its BackupAndRestore."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch

from benchmarks.proof.tasks import BATCH_SIZE, EPOCHS, RATE, Fuse, Points, Task, held_out, rate


class Batches(keras.utils.PyDataset):
    """The points in an order that is drawn for each epoch."""

    def __init__(self, points: Points, shuffle: bool, **options: Any) -> None:
        super().__init__(**options)
        self.points, self.shuffle = points, shuffle
        self.order = np.arange(len(points))
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.points) // BATCH_SIZE

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        x, y = zip(*(self.points[at] for at in chosen), strict=True)
        return torch.stack(x).numpy(), torch.stack(y).numpy()

    def on_epoch_end(self) -> None:
        if self.shuffle:
            np.random.shuffle(self.order)


class Burning(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        Fuse.burn()


class Cosine(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, step: Any) -> Any:
        progress = keras.ops.cast(step, "float32") / self.task.updates
        return RATE * 0.5 * (1 + keras.ops.cos(np.pi * progress))


def train(task: Task, directory: Path) -> dict[str, torch.Tensor]:
    keras.utils.set_random_seed(0)
    norm = [keras.layers.BatchNormalization()] if task.batch_norm else []
    model = keras.Sequential(
        [
            keras.layers.Input((16,)),
            *(keras.layers.Dense(task.width), *norm, keras.layers.ReLU()),
            *(keras.layers.Dropout(task.dropout), keras.layers.Dense(task.width, "relu")),
            keras.layers.Dense(4),
        ]
    )
    optimizer = keras.optimizers.AdamW(
        Cosine(task) if task.cosine else RATE * rate(task, 0),
        gradient_accumulation_steps=task.accumulate if task.accumulate > 1 else None,
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    backup = keras.callbacks.BackupAndRestore(
        str(directory), save_freq=task.save_every_updates * task.accumulate
    )
    model.fit(
        Batches(Points(task), shuffle=True, workers=max(1, task.workers)),
        epochs=EPOCHS,
        validation_data=Batches(held_out(task), shuffle=False) if task.evaluate_every else None,
        callbacks=[backup, Burning()],
        verbose=0,
    )
    return {weight.path: torch.tensor(weight.numpy()) for weight in model.weights}
