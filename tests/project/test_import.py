"""Importing functrain is light and changes no global state."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import processes
import pytest

import functrain as ft

# Each runs in its own fork of one interpreter that has imported torch and nothing else.
PIECES = {
    "importing functrain imports no optional package, no compiler and no store": """
before = set(sys.modules)
import functrain
packages = {name.split(".")[0] for name in set(sys.modules) - before}
optional = {"sklearn", "matplotlib", "hypothesis", "pytest"}
assert not packages & {*optional, "omegaconf", "typer", "rich"}
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "functrain."))]
""",
    "a program alone brings in no optimizer, no data and no loop": """
import functrain.core.program
names = [name.split(".") for name in sys.modules if name.startswith("functrain.")]
assert {room for _, room, *_ in names} == {"core", "errors", "tree"}
""",
    "an eager run imports neither the compiler nor DTensor nor IPython": """
import functrain as ft, functrain.config
program = ft.program(torch.nn.Linear(2, 1), lambda m, x: m(x).mean(), ft.optim.AdamW(lr=0.1))
data = ft.data.Batches(torch.ones(4, 2), batch_size=2)
live = [ft.listeners.LiveCurves(), ft.listeners.ProgressBar()]
ft.fit(program, data, until="1 epoch", eval_data=data, listeners=live)
ft.tree.digest({"a": torch.ones(2)})
assert not {"torch._dynamo", "torch.distributed.tensor", "sympy", "IPython"} & set(sys.modules)
""",
    "matplotlib is imported to draw only": """
import functrain
functrain.schedules.Cosine, functrain.plotting.curves
assert "matplotlib" not in sys.modules
""",
    "importing changes no global random state": """
import random
torch.manual_seed(1), random.seed(1)
before = torch.get_rng_state(), random.getstate()
import functrain
assert torch.equal(before[0], torch.get_rng_state())
assert before[1] == random.getstate()
""",
    "an unknown name that is asked for imports nothing, unless the error is shown": """
import random, functrain
before = set(sys.modules), random.getstate()
assert not hasattr(functrain, "AdamW")  # pickle asks every module for a name
assert before == (set(sys.modules), random.getstate())
try:
    functrain.AdamW
except AttributeError as error:
    assert str(error).endswith("has no attribute 'AdamW': use functrain.optim.AdamW"), error
""",
    "a compiled loss may be the first to use a name": """
import functrain as ft
loss = torch.compile(lambda x: ft.Loss(x.mean()), backend="eager", fullgraph=True)
assert loss(torch.ones(2)).value == 1
""",
}


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    return processes.failures_in_forks(PIECES)


@pytest.mark.parametrize("name", PIECES)
def test_in_a_new_process(name: str, failures: dict[str, str]) -> None:
    assert failures[name] == ""


def test_dir_lists_the_public_names_only() -> None:
    assert dir(ft) == sorted([*ft.__all__, "__version__"])


def test_every_public_name_is_found_where_type_checkers_find_it() -> None:
    for name, module in ft._DEFINED_IN.items():
        assert getattr(ft, name) is getattr(importlib.import_module(module), name)
    assert ft._DEFINED_IN.keys() <= set(ft.__all__)
    for name in {*ft.__all__, *ft._ROOMS, *ft._IN_TRAINING} - ft._DEFINED_IN.keys():
        assert isinstance(getattr(ft, name), ModuleType)
    source = ast.parse(Path(ft.__file__).read_text())
    imported = {
        alias.name: node.module
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name: imported[name] for name in ft._DEFINED_IN} == ft._DEFINED_IN
    assert set(ft.__all__) <= imported.keys()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'functrain' has no attribute 'programm'"):
        _ = ft.programm
