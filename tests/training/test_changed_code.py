"""A call that is repeated with other code, other initial weights or other evaluation data."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain import errors
from functrain.training import run_record
from functrain.training.code import describe_code

X = torch.linspace(-1, 1, 48).reshape(16, 3)

# A user's file: each test replaces a text of it by another.
SOURCE = '''
"""A user's file."""
import argparse, functools
import torch
from torch import nn
import functrain as ft

SCALE = 1.0
WEIGHTS = torch.ones(3)
args = argparse.Namespace(alpha=1.0, epochs=3)
config = {"beta": 1.0, "epochs": 3, "by_name": {"a": 1.0}}
criterion = nn.SmoothL1Loss(beta=1.0)
calls = []
X = torch.linspace(-1, 1, 48).reshape(16, 3)

def helper(x):
    """Square."""
    return x.square()

class Weighted:
    def __init__(self):
        self.factor, self.seen = 1.0, 0
    def __call__(self, model, batch):
        self.seen += 1
        return self.factor * model(batch).square().mean()
    def __repr__(self):
        return "weighted"

def scaled(weight):
    def loss(model, batch, power=2):
        calls.append(1)
        terms = sum(config["by_name"].values()) * config["beta"] * args.alpha
        out = helper(model(batch * WEIGHTS)).mean() * weight * SCALE * terms
        return out ** (power // 2) + 0 * criterion(model(batch), model(batch))
    return loss

def partial_loss(model, batch, gain):
    return gain * model(batch).square().mean()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.slope = nn.Linear(3, 1), 1.0
    def forward(self, x):
        return self.activate(self.layer(x)) * self.slope
    def activate(self, x):
        return torch.tanh(x)

def transform(sample):
    return sample * 1.0

def evaluate(model, batch):
    return model(batch).abs().mean()

def rate(step, base=0.01):
    return base / (1 + step)

def is_first(path, tensor):
    return path.endswith("weight")

def make(loss, lr=0.01, optimizer=None, **options):
    return ft.program(Net, loss, optimizer or ft.optim.SGD(lr=lr), **options)

LOSSES = {
    "closure": lambda: make(scaled(1.0)),
    "object": lambda: make(Weighted()),
    "partial": lambda: make(functools.partial(partial_loss, gain=1.0)),
    "lambda": lambda: make(lambda m, x: m(x).square().mean()),
    "evaluate": lambda: make(scaled(1.0), evaluate=evaluate),
    "schedule": lambda: make(scaled(1.0), lr=rate),
    "groups": lambda: make(scaled(1.0), optimizer=ft.optim.groups(
        [(is_first, ft.optim.SGD(lr=0.01)), ("*", ft.optim.SGD(lr=0.01))])),
    "custom": lambda: ft.custom(begin, custom_step),
}
def begin(seed):
    return torch.zeros(3)
def custom_step(tree, batch, rng):
    return tree + 0.1 * batch.mean(0), {"loss": tree.sum()}
'''


def load(path: Path, old: str = "", new: str = "") -> ModuleType:
    assert old in SOURCE
    path.write_text(SOURCE.replace(old, new) if old else SOURCE)
    spec = importlib.util.spec_from_file_location("users_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["users_file"] = module
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    return module


def fit(module: Any, kind: str, directory: Path, until: str, **options: Any) -> ft.Run:
    data = ft.data.Batches(X, 4, transform=module.transform)
    return ft.fit(module.LOSSES[kind](), data, until=until, directory=directory, **options)


CHANGES = {
    "the body": ("closure", "x.square()", "x.abs()", "helper"),
    "a closed-over value": ("closure", "scaled(1.0)", "scaled(2.0)", "loss.weight: 1.0"),
    "a constant": ("closure", "SCALE = 1.0", "SCALE = 2.0", "SCALE: 1.0"),
    "a default": ("closure", "power=2", "power=4", "power: 2"),
    "a tensor": ("closure", "torch.ones(3)", "torch.zeros(3)", "WEIGHTS"),
    "an argument of the script": ("closure", "alpha=1.0", "alpha=2.0", "alpha: 1.0"),
    "a key": ("closure", '"beta": 1.0', '"beta": 2.0', "beta: 1.0"),
    "a dict that is iterated": ("closure", '{"a": 1.0}', '{"a": 2.0}', "by_name.a: 1.0"),
    "an option of torch's": ("closure", "beta=1.0)", "beta=2.0)", "criterion.beta: 1.0"),
    "an attribute of the loss": ("object", "self.factor, self.seen = 1", None, "factor: 1.0"),
    "a method of the loss": ("object", "self.factor * model", "-model", "__call__"),
    "a partial": ("partial", "gain=1.0", "gain=2.0", "gain: 1.0"),
    "a lambda": ("lambda", "lambda m, x: m(x)", "lambda m, x: 2 * m(x)", "lambda"),
    "the forward": ("closure", "torch.tanh(x)", "torch.sigmoid(x)", "Net.activate"),
    "a number in the model": ("closure", "nn.Linear(3, 1), 1.0", "nn.Linear(3, 1), 2.0", "slope"),
    "the transform": ("closure", "sample * 1.0", "sample * 2.0", "transform"),
    "the evaluation": ("evaluate", ".abs().mean()", ".square().sum()", "evaluate"),
    "a step of programs": ("custom", "0.1 * batch", "0.2 * batch", "custom_step"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_code_is_named_whether_training_goes_on_or_not(name: str, tmp_path: Path) -> None:
    kind, old, new, told = CHANGES[name]
    run = fit(load(tmp_path / "users_file.py"), kind, tmp_path / "run", "1 epoch")
    changed = load(tmp_path / "users_file.py", old, new or old.replace("= 1", "= 2"))
    with pytest.warns(errors.RecipeChangedWarning, match=rf"(?s)nothing is left.*{told}"):
        assert fit(changed, kind, tmp_path / "run", "1 epoch").new_steps == 0
    with pytest.warns(errors.RecipeChangedWarning, match=told):
        assert fit(changed, kind, tmp_path / "run", "2 epochs").new_steps == 4
    assert run.state.counters.step == 4


SAME = {
    "a comment": ("def helper(x):", "# Not a change.\n\ndef helper(x):"),
    "a docstring": ('"""Square."""', '"""Return the square."""'),
    "how it is shown": ('return "weighted"', 'return "a weighted loss"'),
    "the length of the run": ("epochs=3", "epochs=5"),
    "the length in a dict": ('"epochs": 3', '"epochs": 5'),
    "a counter": ("calls = []", "calls = [1, 2]"),
}


@pytest.mark.parametrize("kind", ["closure", "object", "partial", "schedule", "groups", "custom"])
def test_the_same_code_goes_on_without_a_word(kind: str, tmp_path: Path) -> None:
    """Warnings are errors here."""
    fit(load(tmp_path / "users_file.py"), kind, tmp_path / "run", "1 epoch")
    for until, steps in (("1 epoch", 0), ("2 epochs", 4)):
        again = load(tmp_path / "users_file.py")
        assert fit(again, kind, tmp_path / "run", until).new_steps == steps


@pytest.mark.parametrize("name", SAME)
def test_what_computes_nothing_else_is_no_change(name: str, tmp_path: Path) -> None:
    kind = "object" if "shown" in name else "closure"
    fit(load(tmp_path / "users_file.py"), kind, tmp_path / "run", "1 epoch")
    again = load(tmp_path / "users_file.py", *SAME[name])
    assert fit(again, kind, tmp_path / "run", "1 epoch").new_steps == 0


def test_rates_and_groups_belong_to_the_recipe(tmp_path: Path) -> None:
    for kind, old, new, told in (
        ("schedule", "base=0.01", "base=0.02", r"lr at step 0: 0\.01"),
        ("groups", '"weight"', '"bias"', r"optimizers\.layer\.weight: 'group 0'"),
    ):
        directory = tmp_path / kind
        fit(load(tmp_path / "users_file.py"), kind, directory, "1 epoch")
        changed = load(tmp_path / "users_file.py", old, new)
        with pytest.raises(errors.RunChangedError, match=told):
            fit(changed, kind, directory, "1 epoch")


def test_another_process_and_hash_seed_have_the_same_record(tmp_path: Path) -> None:
    file = tmp_path / "users_file.py"
    load(file)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import users_file, json\n"
        "from functrain.training.code import describe_code\n"
        "roots = {name: make() for name, make in users_file.LOSSES.items()}\n"
        "print(json.dumps(describe_code(roots)))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(printed) == 1
    assert b"helper" in printed.pop()


def test_code_of_another_python_is_said_to_be_incomparable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_another = lambda *given: {**describe_code(*given), "python": "3.9"}  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(run_record, "describe_code", of_another)
        fit(load(tmp_path / "users_file.py"), "closure", tmp_path / "run", "1 epoch")
    changed = load(tmp_path / "users_file.py", "x.square()", "x.abs()")
    with pytest.warns(errors.RecipeChangedWarning, match=r"Python 3\.9.* cannot be compared"):
        fit(changed, "closure", tmp_path / "run", "2 epochs")


class Rows(Sequence[torch.Tensor]):
    """Samples by number, and no part of them by a slice."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: Any) -> Any:
        assert isinstance(index, int), "read where no sample was asked for"
        return X[index]


def test_no_sample_is_read_to_compare_code(tmp_path: Path) -> None:
    loss = lambda m, x: m(x).square().mean()  # noqa: E731
    program = ft.program(lambda: nn.Linear(3, 1), loss, ft.optim.SGD(lr=0.1))
    for steps in (4, 0):
        data = ft.data.Batches(Rows(), 4)
        assert ft.fit(program, data, until="1 epoch", directory=tmp_path).new_steps == steps


class TestInitialWeights:
    def fit(self, directory: Path, until: str = "1 epoch", **options: Any) -> ft.Run:
        model = options.pop("model", None) or nn.Linear(3, 1)
        program = ft.program(model, lambda m, x: m(x).square().mean(), ft.optim.SGD(lr=0.1))
        return ft.fit(program, [X], until=until, directory=directory, **options)

    @pytest.mark.parametrize("until", ["1 epoch", "2 epochs"])
    def test_of_another_seed_are_refused(self, until: str, tmp_path: Path) -> None:
        torch.manual_seed(1)
        self.fit(tmp_path)
        torch.manual_seed(2)
        with pytest.raises(errors.RunChangedError, match="initial weights"):
            self.fit(tmp_path, until)
        torch.manual_seed(1)
        assert self.fit(tmp_path, until).state.counters.step == int(until[0])

    def test_that_were_loaded_from_elsewhere_are_refused(self, tmp_path: Path) -> None:
        for number in (1, 2):
            torch.manual_seed(0)
            model = nn.Linear(3, 1)
            nn.init.constant_(model.weight, number)
            if number == 1:
                self.fit(tmp_path, model=model)
        with pytest.raises(errors.RunChangedError, match="other initial weights"):
            self.fit(tmp_path, model=model)
        assert self.fit(tmp_path, "2 epochs", model=model, resume="latest").new_steps == 1

    def test_of_a_model_made_again_without_a_seed_are_warned_of(self, tmp_path: Path) -> None:
        """As by a notebook cell that runs twice: the run must go on."""
        torch.manual_seed(0)
        self.fit(tmp_path)
        with pytest.warns(errors.ResumeWarning, match="made again .* other weights"):
            assert self.fit(tmp_path, "2 epochs").new_steps == 1

    def test_of_a_factory_are_a_function_of_the_seed(self, tmp_path: Path) -> None:
        def make() -> nn.Module:
            return nn.Linear(3, 1)

        self.fit(tmp_path, model=make)
        torch.manual_seed(5)
        assert self.fit(tmp_path, "2 epochs", model=make).new_steps == 1

    def test_of_a_given_state_count(self, tmp_path: Path) -> None:
        program = ft.program(
            lambda: nn.Linear(3, 1), lambda m, x: m(x).square().mean(), ft.optim.SGD(lr=0.1)
        )
        own, other = program.init(), program.init(params={"weight": X[:1], "bias": X[0, :1]})

        def run(until: str, state: Any) -> ft.Run:
            return ft.fit(program, [X], until=until, directory=tmp_path, state=state)

        run("1 epoch", other)
        assert run("1 epoch", other).new_steps == 0
        assert run("1 epoch", None).new_steps == 0  # a run that is resumed has its own
        with pytest.raises(errors.RunChangedError, match="than those of this state"):
            run("2 epochs", own)


class TestEvaluationData:
    def fit(self, directory: Path, rows: torch.Tensor, until: str, **options: Any) -> ft.Run:
        program = ft.program(
            lambda: nn.Linear(3, 1), lambda m, x: m(x).square().mean(), ft.optim.SGD(lr=0.1)
        )
        sets = {"valid": ft.Evaluation(ft.data.Batches(rows, 4), **options)}
        return ft.fit(program, [X], until=until, directory=directory, eval_data=sets)

    def test_of_other_contents_are_refused_or_named(self, tmp_path: Path) -> None:
        self.fit(tmp_path, X, "1 epoch")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert self.fit(tmp_path, X.clone(), "1 epoch").new_steps == 0
        with pytest.raises(errors.RunChangedError, match=r"eval_data\.valid\.contents"):
            self.fit(tmp_path, X + 1, "1 epoch")
        with pytest.warns(errors.RecipeChangedWarning, match=r"eval_data\.valid\.contents"):
            self.fit(tmp_path, X + 1, "2 epochs")

    def test_of_another_number_of_batches_are_refused(self, tmp_path: Path) -> None:
        self.fit(tmp_path, X, "1 epoch", batches=1)
        with pytest.raises(errors.RunChangedError, match=r"valid\.batches: 1 .* 2 now"):
            self.fit(tmp_path, X, "1 epoch", batches=2)
