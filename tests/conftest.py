"""Fixtures for all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

# What is summed by several threads has other last bits: processes that tests start use as many.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Test modules share the helper modules in support.
sys.path.insert(0, str(Path(__file__).parent / "support"))

from models import CASES, Case


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param
