"""Time ``import functrain`` on top of ``import torch``, and its pytest plugin on top of pytest.

Prints the minimum over fresh processes.

python benchmarks/import_time.py
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
import time
begin = time.perf_counter()
import {first}
middle = time.perf_counter()
import {second}
end = time.perf_counter()
print(middle - begin, end - middle)
"""


def seconds(first: str, second: str) -> list[float]:
    """Time the import of one module, and then of another."""
    command = [sys.executable, "-c", CODE.format(first=first, second=second)]
    runs = []
    for _ in range(7):
        done = subprocess.run(command, capture_output=True, check=True)
        runs.append([float(part) for part in done.stdout.split()])
    return [min(column) for column in zip(*runs, strict=True)]


def main() -> None:
    for first, second in (("torch", "functrain"), ("pytest", "functrain_pytest")):
        before, added = seconds(first, second)
        print(f"import {first}: {before * 1e3:.1f} ms")
        print(f"import {second} on top: {added * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
