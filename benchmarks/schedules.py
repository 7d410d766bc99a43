"""Time the learning rate of a schedule: microseconds, minimum of many repeats.

python benchmarks/schedules.py
"""

from __future__ import annotations

import timeit

from functrain.schedules import Constant, Cosine, Linear, WarmupCosine, WarmupLinear

SCHEDULES = (
    Constant(0.1),
    Linear(0.1, steps=1000),
    Cosine(0.1, steps=1000),
    WarmupLinear(0.1, warmup_steps=10, steps=1000),
    WarmupCosine(0.1, warmup_steps=10, steps=1000),
)
CALLS = 2000


def main() -> None:
    for schedule in SCHEDULES:
        state, lr = schedule.init(), schedule.lr
        seconds = min(timeit.repeat(lambda: lr(state, 500), number=CALLS, repeat=50))  # noqa: B023
        print(f"{type(schedule).__name__}: {seconds / CALLS * 1e6:.2f} us")


if __name__ == "__main__":
    main()
