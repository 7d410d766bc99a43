"""Pretrained values in part, under other names, and from a path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import functrain as ft
from functrain import errors, tree


class Model(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def program(outputs: int = 3) -> ft.Program:
    loss: Any = lambda model, x: model(x).square().mean()  # noqa: E731
    return ft.program(lambda: Model(outputs), loss, ft.optim.SGD(lr=0.1))


@pytest.fixture
def values() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return {k: v.clone() for k, v in Model(outputs=7).state_dict().items()}


def test_some_of_another_model(values: dict[str, Tensor]) -> None:
    fresh = program().init(seed=1)
    state = program().init(seed=1, params=values, only="trunk.*")
    for path, tensor in {**state.params, **state.buffers}.items():
        expected = values[path] if path.startswith("trunk") else fresh.params[path]
        assert tree.equal(tensor, expected), path
    with pytest.raises(errors.ParameterMismatchError, match=r"'head.weight' has shape \[7, 8\]"):
        program().init(params=values)


def test_other_names(values: dict[str, Tensor]) -> None:
    theirs = {f"net.{k}".replace("net.trunk.", "backbone."): v for k, v in values.items()}
    rename = {"backbone.": "trunk.", "net.": ""}
    for given in (rename, lambda name: name.replace("backbone", "trunk").removeprefix("net.")):
        state = program(7).init(params=theirs, rename=given)
        assert tree.equal(
            {k: state.params[k] for k in state.params}, {k: values[k] for k in state.params}
        )
    state = program().init(params=theirs, rename=rename, only=["trunk.0.*"])
    assert tree.equal(state.params["trunk.0.weight"], values["trunk.0.weight"])


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "run"])
def test_a_path(values: dict[str, Tensor], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(values, path)
    elif suffix == "safetensors":
        save_file(values, path)
    else:
        ft.save(path, program(7).init(params=values))
    for given in (path, str(path)):
        state = program(7).init(params=given)
        assert tree.equal(state.params["trunk.0.weight"], values["trunk.0.weight"])
    assert program().init(params=str(path), only="trunk.*").counters.step == 0
    with pytest.raises(errors.NoCheckpointError):
        program().init(params=str(tmp_path / "nowhere.pt"))


def test_a_population_and_a_joint_program(values: dict[str, Tensor]) -> None:
    pop = ft.population(program(), seeds=[0, 1])
    state = pop.init(params=values, only="trunk.*")
    assert tree.equal(state.params["trunk.0.weight"][1], values["trunk.0.weight"])
    both = ft.joint({"one": program(7)}, step=lambda programs, states, batch, rng: (states, {}))
    assert tree.equal(
        both.init(params={"one": values}).one.params["head.weight"], values["head.weight"]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": "trnk.*"}, "only: 'trnk.*' matches none"),
        ({"only": ["trunk.*", "tail.*"]}, "only: 'tail.*' matches none"),
        ({"rename": {"backbone.": "trunk."}}, "rename: expected the beginnings"),
        ({"rename": lambda name: "same"}, "two of the params would be called 'same'"),
    ],
)
def test_what_matches_nothing(
    values: dict[str, Tensor], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        program().init(params=values, **options)
    assert words in str(caught.value)
    with pytest.raises(errors.ConfigurationError, match="choose among params"):
        program().init(**options)


def test_a_missing_name_is_an_error(values: dict[str, Tensor]) -> None:
    del values["trunk.0.weight"]
    with pytest.raises(errors.ParameterMismatchError, match=r"missing 'trunk.0.weight'"):
        program().init(params=values, only="trunk.*")


def test_a_model_made_without_values_takes_those_given() -> None:
    with torch.device("meta"):
        made = program()
    values = Model().double().state_dict()
    state = made.init(params=values)
    after, _ = made.train_step(state, torch.ones(6, 4))
    assert after.params["head.weight"].dtype == torch.float32
    expected, _ = program().train_step(program().init(params=values), torch.ones(6, 4))
    assert tree.equal(after, expected)
