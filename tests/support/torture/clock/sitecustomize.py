"""Make the wall clock of a process jump back and forth; put this folder on its PYTHONPATH."""

from __future__ import annotations

import os
import random
import time

if "TORTURE_CLOCK" in os.environ:
    _real, _random, _offset = time.time, random.Random(os.environ["TORTURE_CLOCK"]), [0.0]

    def _jumping() -> float:
        if _random.random() < 0.1:
            _offset[0] = _random.uniform(-1e6, 1e6)
        return _real() + _offset[0]

    time.time = _jumping
