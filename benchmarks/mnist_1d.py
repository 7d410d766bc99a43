"""Repeat the table of MNIST-1D: test accuracy of four models, with and without shuffled features.

python benchmarks/mnist_1d.py [--seeds 42 43 44] [--steps 6000] [--models CNN MLP] [--plain]

Greydanus and Kobak (2024, "Scaling Down Deep Learning with MNIST-1D", table 1) train each model
for 6,000 steps of Adam at a rate of 0.01 on batches of 100 in a fixed order. The package `mnist1d`
makes the data without a download. `--plain` trains each model in an ordinary PyTorch loop too, and
says whether both end in the same bytes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from mnist1d.data import get_dataset_args, make_dataset
from torch import Tensor, nn

import functrain as ft

BATCH_SIZE, LEARNING_RATE = 100, 1e-2


class Residual(nn.Sequential):
    """Layers whose result is added to their input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Recurrent(nn.Module):
    """A bidirectional GRU over the 40 points, and a linear layer over all its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 6, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * 6 * 40, 10)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.gru(x[:, :, None])
        return self.head(outputs.flatten(1))


def linear() -> nn.Module:
    return nn.Linear(40, 10)


def mlp() -> nn.Module:
    hidden = Residual(nn.Linear(100, 100), nn.ReLU())
    return nn.Sequential(nn.Linear(40, 100), nn.ReLU(), hidden, nn.Linear(100, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 40)),
        *(nn.Conv1d(1, 25, 5, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv1d(25, 25, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv1d(25, 25, 3, stride=2, padding=1), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(125, 10),
    )


@attrs.frozen
class Entry:
    """A row of the table: the authors' accuracies in percent, and what makes the model."""

    make: Callable[[], nn.Module]
    published: int
    published_shuffled: int


TABLE = {
    "logistic regression": Entry(linear, 32, 32),
    "MLP": Entry(mlp, 68, 68),
    "CNN": Entry(cnn, 94, 56),
    "GRU": Entry(Recurrent, 91, 57),
}


@attrs.frozen
class Task:
    """Training and test data: features [samples, 40] and labels."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def task(shuffled: bool) -> Task:
    """Return the data set of the paper; `shuffled` puts the 40 points into another order."""
    made = make_dataset(get_dataset_args())
    order = np.random.RandomState(42).permutation(40) if shuffled else np.arange(40)
    return Task(*(_columns(made, suffix, order) for suffix in ("", "_test")))


def _columns(made: dict[str, np.ndarray], suffix: str, order: np.ndarray) -> tuple[Tensor, Tensor]:
    features = torch.tensor(made[f"x{suffix}"], dtype=torch.float32)[:, torch.tensor(order)]
    # A sum over another memory layout may be rounded otherwise, and the plain loop slices batches.
    return features.contiguous(), torch.tensor(made[f"y{suffix}"], dtype=torch.int64)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    features, labels = batch
    return F.cross_entropy(model(features), labels)


def ours(model: nn.Module, task: Task, steps: int) -> nn.Module:
    """Return the model after training with functrain."""
    program = ft.program(model, loss, ft.optim.Adam(lr=LEARNING_RATE))
    data = ft.data.Batches(task.train, BATCH_SIZE, shuffle=False)
    run = ft.fit(program, data, until=ft.Steps(steps))
    model.load_state_dict({**run.state.params, **run.state.buffers})
    return model


def plain(model: nn.Module, task: Task, steps: int) -> nn.Module:
    """Return the model after training in an ordinary loop."""
    features, labels = (column.split(BATCH_SIZE) for column in task.train)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    for step in range(steps):
        index = step % len(labels)
        optimizer.zero_grad()
        loss(model, (features[index], labels[index])).backward()
        optimizer.step()
    return model


Trainer = Callable[[nn.Module, Task, int], nn.Module]


def trained(train: Trainer, entry: Entry, task: Task, seed: int, steps: int) -> nn.Module:
    torch.manual_seed(seed)
    return train(entry.make(), task, steps)


@torch.no_grad()
def accuracy(model: nn.Module, task: Task) -> float:
    """Return the share of test samples that are classified correctly, in percent."""
    features, labels = task.test
    return 100 * (model(features).argmax(-1) == labels).float().mean().item()


def shown(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def row(name: str, tasks: tuple[Task, Task], options: argparse.Namespace) -> str:
    """Train a model on both tasks and return its row of the table."""
    entry, cells = TABLE[name], [name]
    for data, published in zip(tasks, (entry.published, entry.published_shuffled), strict=True):
        models = [trained(ours, entry, data, seed, options.steps) for seed in options.seeds]
        cells += [str(published), shown([accuracy(model, data) for model in models])]
    if options.plain:
        ordinary = trained(plain, entry, data, options.seeds[-1], options.steps)
        same = ft.tree.equal(dict(ordinary.state_dict()), dict(models[-1].state_dict()))
        cells.append("yes" if same else "NO")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--models", nargs="+", choices=TABLE, default=list(TABLE))
    parser.add_argument("--plain", action="store_true", help="compare with an ordinary loop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    titles = ["accuracy, %", "published", "functrain", "published, shuffled", "functrain, shuffled"]
    titles += ["same bytes as a plain loop"] if options.plain else []
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    tasks = (task(shuffled=False), task(shuffled=True))
    for name in options.models:
        print(row(name, tasks, options), flush=True)


if __name__ == "__main__":
    main()
