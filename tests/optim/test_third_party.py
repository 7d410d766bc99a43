"""Optimizers of other packages through from_torch: equal to the class itself, bit for bit.

Each package is skipped where it is not installed. A class is left out where it cannot be made of
parameters and a learning rate alone, or fails by itself.
"""

from __future__ import annotations

import inspect
import random
from typing import Any

import numpy as np
import pytest
import torch
from optimizer_runs import run_class, run_in_place, run_pure

from functrain.errors import UnsupportedError
from functrain.optim import from_torch

pytestmark = pytest.mark.row(14)

STEPS = 10
# The least number of comparable classes in each package.
PACKAGES = {"pytorch_optimizer": 90, "prodigyopt": 1, "lion_pytorch": 1, "schedulefree": 3}


def classes(package: str) -> dict[str, Any]:
    module = pytest.importorskip(package)
    found = {name: value for name, value in vars(module).items() if inspect.isclass(value)}
    base = torch.optim.Optimizer
    return {name: cls for name, cls in found.items() if issubclass(cls, base) and cls is not base}


def seed() -> None:
    """Seed all that a class may draw from; Kron balances with a chance of NumPy's."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def by_itself(cls: Any) -> Any:
    """Return the class's result, or None if it does not work alone."""
    seed()
    try:
        return run_class(cls, {}, STEPS)
    except Exception:  # whatever a stranger's class raises, there is nothing to compare with
        return None


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.filterwarnings("ignore")
def test_every_class_that_works_by_itself_works_the_same_as_a_value(package: str) -> None:
    compared = []
    for name, cls in classes(package).items():
        expected = by_itself(cls)
        if expected is None:
            continue
        for run in (run_pure, run_in_place):
            seed()
            found = run(from_torch(cls, lr=0.02), STEPS)
            assert all(torch.equal(found[path], expected[path]) for path in expected), name
        compared.append(name)
    print(f"{package}: {len(compared)} classes")
    assert len(compared) >= PACKAGES[package]


def test_one_that_wants_a_closure_is_refused() -> None:
    cls = pytest.importorskip("schedulefree").SGDScheduleFreeClosure
    with pytest.raises(UnsupportedError, match="needs a closure"):
        from_torch(cls)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_heavyball() -> None:
    cls = pytest.importorskip("heavyball").SGD
    found, expected = run_pure(from_torch(cls, lr=0.02), STEPS), by_itself(cls)
    assert all(torch.equal(found[path], expected[path]) for path in expected)
