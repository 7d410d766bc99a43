"""What ``import functrain`` adds to ``import torch``: minimum over fresh processes.

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


def main() -> None:
    runs = []
    for _ in range(7):
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True)
        runs.append([float(part) for part in done.stdout.split()])
    torch_seconds, ours = (min(column) for column in zip(*runs, strict=True))
    print(f"import torch: {torch_seconds * 1e3:.0f} ms")
    print(f"import functrain on top: {ours * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
