"""The contenders: a name, the packages that it needs, and the function that trains."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

from benchmarks.proof.tasks import Task

Train = Callable[[Task, Path], dict[str, Any]]


@attrs.frozen
class Contender:
    """A way to train: `function` of `module` begins a run in a directory, or resumes it there.

    Attributes:
        runs_on_several: whether it trains one model on several processes with PyTorch.
    """

    name: str
    package: str
    module: str
    function: str = "train"
    runs_on_several: bool = True

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    @property
    def title(self) -> str:
        return f"{self.name} {importlib.metadata.version(self.package)}"

    def load(self) -> Train:
        train: Train = getattr(import_module(f"benchmarks.proof.{self.module}"), self.function)
        return train


CONTENDERS = (
    Contender("functrain", "functrain", "in_functrain"),
    Contender("PyTorch loop, as in the tutorial", "torch", "in_torch"),
    Contender("PyTorch loop, with generators", "torch", "in_torch", "train_carefully"),
    Contender("Lightning", "lightning", "in_lightning"),
    Contender("Accelerate", "accelerate", "in_accelerate"),
    Contender("transformers Trainer", "transformers", "in_transformers"),
    Contender("Keras", "keras", "in_keras", runs_on_several=False),
)
