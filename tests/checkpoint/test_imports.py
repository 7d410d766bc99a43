"""The room is separable: saving a tree imports neither programs nor ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

IMPORTS = """
import json, sys
import functrain.checkpoint.saving
names = [name for name in sys.modules if name.startswith("functrain.")]
print(json.dumps({name: sys.modules[name].__file__ for name in names}))
"""


def test_saving_imports_errors_and_the_tree_only() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTS], stdout=subprocess.PIPE, check=True)
    files = json.loads(ended.stdout)
    assert {name.split(".")[1] for name in files} == {"errors", "tree", "checkpoint"}
    assert len(files) <= 60
    assert sum(len(Path(file).read_text().splitlines()) for file in files.values()) <= 9000
