"""Train one contender in this process, which kills itself.

python -m benchmarks.proof.train NAME DIRECTORY BATCHES
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.proof.contenders import CONTENDERS
from benchmarks.proof.tasks import Fuse, Task

if __name__ == "__main__":
    name, directory, batches = sys.argv[1:]
    torch.set_num_threads(1)
    Fuse.batches = int(batches)
    (contender,) = (one for one in CONTENDERS if one.name == name)
    contender.load()(Task("traced"), Path(directory))
