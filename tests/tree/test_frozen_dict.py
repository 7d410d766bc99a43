"""The mappings of a state: read like dicts, never written to."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import functrain as ft
from functrain import tree
from functrain.errors import UnsupportedError
from functrain.tree import FrozenDict, frozen, thawed


def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


@pytest.fixture
def program() -> ft.Program:
    torch.manual_seed(0)
    return ft.program(nn.Linear(2, 1), loss, ft.optim.AdamW(lr=0.1), ema=0.9)


WRITES: dict[str, Callable[[Any], Any]] = {
    "item": lambda d: d.__setitem__("weight", 0),
    "del": lambda d: d.__delitem__("weight"),
    "or": lambda d: d.__ior__({"weight": 0}),
    "update": lambda d: d.update(weight=0),
    "pop": lambda d: d.pop("weight"),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
    "setdefault": lambda d: d.setdefault("other", 0),
}


@pytest.mark.row(2)
class TestOfAState:
    @pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
    def test_writing_names_the_remedy_and_changes_nothing(
        self, program: ft.Program, write: Any
    ) -> None:
        state, _ = program.train_step(program.init(), torch.ones(3, 2))
        before = ft.copy(state)
        for mapping in (state.params, state.optimizer, state.optimizer["exp_avg"], state.ema):
            with pytest.raises(UnsupportedError, match=r"attrs.evolve\(state, params="):
                write(mapping)
        assert tree.diff(state, before) == []

    def test_every_mapping_of_every_state_is_read_only(
        self, program: ft.Program, tmp_path: Path
    ) -> None:
        schedule = ft.schedules.Sequential(
            [ft.schedules.Linear(0.1), ft.schedules.Plateau(0.1, mode="min")], [2]
        )
        grouped = ft.optim.groups([("*", ft.optim.from_torch(torch.optim.Adam, lr=schedule))])
        of_groups = ft.program(nn.Linear(2, 1), loss, grouped, precision="fp16")
        state = of_groups.init()
        ft.save(tmp_path / "state", state)
        made = [
            state,
            of_groups.train_step(of_groups.with_horizon(state, 5), torch.ones(3, 2))[0],
            ft.donated(program).train_step(program.init(), torch.ones(3, 2))[0],
            copy.deepcopy(state),
            copy.copy(state),
            ft.copy(state),
            pickle.loads(pickle.dumps(state)),
            ft.load(tmp_path / "state"),
            ft.load(tmp_path / "state", like=state),
            attrs.evolve(state, params=dict(state.params)),
            pytree.tree_map(lambda leaf: leaf, state),
        ]
        for each in made:
            assert [type(node) for node in mappings(each)].count(dict) == 0
            assert FrozenDict in {type(node) for node in mappings(each)}

    def test_another_state_is_made_by_evolve(self, program: ft.Program) -> None:
        state = program.init()
        other = attrs.evolve(state, params={**state.params, "bias": torch.ones(1)})
        assert other.params["bias"] == 1
        assert state.params["bias"] != 1


def mappings(node: Any) -> list[Any]:
    if not tree.is_node(node):
        return []
    below = [inner for _, child in tree.children(node) for inner in mappings(child)]
    return [node, *below] if isinstance(node, dict) else below


class TestAsADict:
    def test_torch_takes_it_where_it_takes_a_dict(self, program: ft.Program) -> None:
        model, params = nn.Linear(2, 1), program.init().params
        model.load_state_dict(params)
        x = torch.ones(3, 2)
        assert torch.func.functional_call(model, params, x).equal(model(x))
        grads = torch.func.grad(
            lambda own: torch.func.functional_call(model, own, x).square().mean()
        )(params)
        stepped = pytree.tree_map(lambda p, g: p - g, params, grads)
        assert stepped.keys() == {"weight", "bias"}

    def test_what_torch_saves_of_it_loads_without_functrain(self, program: ft.Program) -> None:
        params, file = program.init().params, io.BytesIO()
        torch.save(params, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        nn.Linear(2, 1).load_state_dict(loaded)
        assert tree.diff(params, dict(loaded)) == []

    def test_copies_are_plain_and_equal_to_every_tool(self) -> None:
        value = frozen({"a": {"w": torch.ones(2)}, "b": [{"n": 1}], "c": OrderedDict(x=1)})
        plain = thawed(value)
        assert type(plain["a"]) is dict
        assert type(plain["b"][0]) is dict
        assert type(value["b"][0]) is FrozenDict
        assert type(value["c"]) is OrderedDict
        assert tree.diff(value, plain) == []
        assert tree.digest(value) == tree.digest(plain)
        for made in (value["a"] | {}, value["a"].copy(), copy.copy(value["a"])):
            assert type(made) is dict
        assert type(copy.deepcopy(value)["a"]) is dict
