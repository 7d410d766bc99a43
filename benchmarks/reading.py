"""Count what a reader opens: files and lines of the package, of one step, and of the loop.

python benchmarks/reading.py [FOLDER]  # one that holds functrain/, such as another checkout
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE / "tests" / "support"))

from import_graph import closure, import_graph, modules  # noqa: E402

# Traces the second step: the first one imports and fills caches.
STEP = """
import json, os, sys
import torch
import functrain as ft

package = os.path.dirname(ft.__file__) + os.sep
files, stack = set(), []

def loss(model, batch):
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "train_step":
        stack.append(frame.f_code.co_filename)
        frame = frame.f_back
    return (model(batch) ** 2).mean()

def trace(frame, event, argument):
    if frame.f_code.co_filename.startswith(package):
        files.add(frame.f_code.co_filename[len(package):])

program = ft.program(torch.nn.Linear(3, 1), loss, ft.optim.AdamW(lr=1e-3))
state, batch = program.init(), torch.ones(4, 3)
state, _ = program.train_step(state, batch)
stack.clear()
sys.setprofile(trace)
program.train_step(state, batch)
sys.setprofile(None)
print(json.dumps({"files": sorted(files), "frames": len(stack) + 1}))
"""


def lines(files: Iterable[Path]) -> int:
    """Count the lines of files."""
    return sum(len(file.read_text().splitlines()) for file in files)


def figures(root: Path) -> dict[str, int]:
    """Return what is counted, by name.

    Args:
        root: holds ``functrain/``; the layout before the rooms will do, without the loop's figures.
    """
    package, files = root / "functrain", modules(root)
    found = {
        "entries at the top": sum(path.name != "__pycache__" for path in package.iterdir()),
        "files": len(files),
        "lines": lines(files.values()),
    }
    program = next(n for n in ("functrain.core.program", "functrain.program") if n in files)
    pulled = [files[name] for name in closure(import_graph(root), program)]
    found |= {"program pulls in: files": len(pulled), "program pulls in: lines": lines(pulled)}
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", STEP]
    ended = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, check=True)
    step = json.loads(ended.stdout)
    found |= {
        "one AdamW step: files": len(step["files"]),
        "one AdamW step: lines of those files": lines(package / name for name in step["files"]),
        "frames from train_step to the loss": step["frames"],
    }
    core = [path for name, path in files.items() if name.startswith("functrain.core")]
    if core:
        found |= {"core: files": len(core), "core: lines": lines(core)}
    loop = sorted((package / "training").rglob("*.py"))
    if loop:
        one_page = [path for path in loop if path.name in ("fitting.py", "loop.py", "session.py")]
        found |= {"training: files": len(loop), "training: lines": lines(loop)}
        found["fit, loop and session: lines"] = lines(one_page)
    return found


def main() -> None:
    """Print the figures."""
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE
    for name, value in figures(root).items():
        print(f"{name:40} {value:7,}")


if __name__ == "__main__":
    main()
