"""``functrain compile``: the run that follows compiles nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from functrain.transforms.graph import libraries

Run = Callable[..., Any]
CONFIG = """
model: {_target_: torch.nn.Linear, in_features: 3, out_features: 1}
loss: small.loss
data: {_target_: functrain.data.Batches, dataset: {_target_: small.rows}, batch_size: 4}
optimizer: {_target_: functrain.optim.SGD, lr: 0.1}
program: {compiled: true}
fit: {until: 1 epoch}
"""
MODULE = """
import torch

def loss(model, batch):
    return model(batch).square().mean()

def rows():
    return torch.linspace(-1, 1, 30).reshape(10, 3)
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a configuration with two whole batches and a shorter one in an epoch."""
    (tmp_path / "small.py").write_text(MODULE)
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Path]]:
    """Count the libraries that are compiled, in a cache of the test's own."""
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path / "cache"))
    compiled, compile_package = list[Path](), libraries.compile_package

    def counted(path: Path, *rest: Any) -> None:
        compiled.append(path)
        compile_package(path, *rest)

    monkeypatch.setattr(libraries, "compile_package", counted)
    # A new machine would compile two headers first, for as long as the library again.
    with torch._inductor.config.patch({"aot_inductor.precompile_headers": False}):
        yield compiled


@pytest.mark.slow
def test_training_afterwards_compiles_nothing(
    functrain: Run, compilations: list[Path], config: Path, tmp_path: Path
) -> None:
    run = [config, f"directory={tmp_path / 'run'}", "data.drop_last=true"]
    first = functrain("compile", *run, width=200)
    assert first.code == 0, first.err
    assert len(compilations) == 1, first.out
    assert first.out.count(" compiled, ") == 1
    assert "float32 [4, 3]" in first.out
    assert str(tmp_path / "cache" / "compiled") in first.out
    assert not (tmp_path / "run").exists()
    trained = functrain("train", *run)
    assert trained.code == 0, trained.err
    again = functrain("compile", *run, width=200)
    assert again.out.count("already compiled, ") == 1
    assert len(compilations) == 1


@pytest.mark.parametrize(
    ("until", "accumulate", "batches"),
    [("2 steps", 1, ["[4, 3]"]), ("1 epoch", 2, ["[4, 3]; float32 [4, 3]", "\nfloat32 [2, 3]"])],
)
def test_batches_that_the_run_does_not_reach_are_not_compiled(
    functrain: Run, config: Path, until: str, accumulate: int, batches: list[str]
) -> None:
    options = [f"fit.until={until}", f"program.accumulate={accumulate}"]
    ended = functrain("compile", config, "program.compiled={backend: eager}", *options, width=200)
    assert ended.code == 0, ended.err
    assert ended.out.count("compiled, ") == len(batches)
    assert all(batch in ended.out for batch in batches)


def test_a_run_of_eager_steps_has_nothing_to_compile(functrain: Run, config: Path) -> None:
    ended = functrain("compile", config, "program.compiled=false")
    wanted = "program.compiled=true on the command line"
    assert ended.refuses("program.compiled: ", "eager", wanted)


def test_where_nothing_can_be_kept_it_says_so(
    functrain: Run, compilations: list[Path], config: Path
) -> None:
    ended = functrain("compile", config, "program.compiled={backend: eager}", width=200)
    assert ended.code == 0, ended.err
    assert "no library is kept" in ended.out
    assert compilations == []
