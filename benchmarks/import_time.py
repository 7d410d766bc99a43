"""Time ``import functrain`` on top of ``import torch``.

Prints the minimum over fresh processes.

python benchmarks/import_time.py
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
import time
begin = time.perf_counter()
import torch
middle = time.perf_counter()
import functrain
end = time.perf_counter()
print(middle - begin, end - middle)
"""


def seconds() -> list[float]:
    """Time the import of torch, and then of functrain."""
    command = [sys.executable, "-c", CODE]
    runs = []
    for _ in range(7):
        done = subprocess.run(command, capture_output=True, check=True)
        runs.append([float(part) for part in done.stdout.split()])
    return [min(column) for column in zip(*runs, strict=True)]


def main() -> None:
    before, added = seconds()
    print(f"import torch: {before * 1e3:.1f} ms")
    print(f"import functrain on top: {added * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
