"""How many examples a law is tried with: few and the same each time, or many.

FUNCTRAIN_EXAMPLES=long tries many, drawn anew each time (``make properties``); the seed that
Hypothesis prints on failure repeats them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
_COMMON = {"deadline": None, "suppress_health_check": _QUIET}
settings.register_profile("short", max_examples=25, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=400, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("FUNCTRAIN_EXAMPLES", "short"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
