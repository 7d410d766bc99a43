"""How many examples a law is tried with: few and the same each time, or many.

FUNCTRAIN_EXAMPLES=long tries many different ones each time (``make properties``); the seed that
Hypothesis prints on failure repeats them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "support")]

from trying import load_profile  # noqa: E402  (after its place)

load_profile()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


# A law takes its settings when its module is imported. torch's own test utilities, which other
# tests import, may have loaded their profile by then.
def pytest_collectstart() -> None:
    load_profile()
