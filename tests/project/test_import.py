"""Importing functrain is light and changes no global state."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import functrain as ft


def test_no_optional_package_no_compiler_and_no_store_is_imported() -> None:
    code = "import sys, torch; before = set(sys.modules); import functrain; " + (
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}), "
        "[name for name in sys.modules if name.startswith(('torch._dynamo', 'functrain.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *packages, slow = done.stdout.split()
    assert slow == "[]"
    unwanted = {"sklearn", "matplotlib", "hypothesis", "pytest", "omegaconf", "typer", "rich"}
    assert not unwanted & set(packages)


def test_a_program_alone_brings_in_no_optimizer_no_data_and_no_loop() -> None:
    code = "import sys, functrain.core.program; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = [name.split(".") for name in done.stdout.split() if name.startswith("functrain.")]
    assert {room for _, room, *_ in names} == {"core", "errors", "tree"}


def test_an_eager_run_imports_neither_the_compiler_nor_dtensor() -> None:
    code = (
        "import sys, torch, functrain as ft, functrain.config; "
        "program = ft.program(torch.nn.Linear(2, 1), lambda model, batch: model(batch).mean(), "
        "ft.optim.AdamW(lr=0.1)); data = ft.data.Batches(torch.ones(4, 2), batch_size=2); "
        "ft.fit(program, data, until='1 epoch', eval_data=data, listeners=[]); "
        "slow = ('torch._dynamo', 'torch.distributed.tensor', 'sympy'); "
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_changes_no_global_random_state() -> None:
    code = (
        "import torch, random; torch.manual_seed(1); random.seed(1); "
        "before = torch.get_rng_state(), random.getstate(); import functrain; "
        "assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_a_compiled_loss_may_be_the_first_to_use_a_name() -> None:
    code = (
        "import torch, functrain as ft; "
        "loss = torch.compile(lambda x: ft.Loss(x.mean()), backend='eager', fullgraph=True); "
        "assert loss(torch.ones(2)).value == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
