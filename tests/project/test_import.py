"""What importing functrain brings in."""

from __future__ import annotations

import subprocess
import sys


def test_no_optional_package_no_compiler_and_no_store_is_imported() -> None:
    code = "import sys, torch; before = set(sys.modules); import functrain; " + (
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}), "
        "any(name in sys.modules for name in ('torch._dynamo', 'functrain.checkpoint')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *packages, slow = done.stdout.split()
    assert slow == "False"
    unwanted = {"sklearn", "matplotlib", "hypothesis", "pytest", "omegaconf", "typer", "rich"}
    assert not unwanted & set(packages)


def test_importing_changes_no_global_random_state() -> None:
    code = (
        "import torch, random; torch.manual_seed(1); random.seed(1); "
        "before = torch.get_rng_state(), random.getstate(); import functrain; "
        "assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
