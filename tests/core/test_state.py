"""TrainState: frozen, a pytree by path, and readable."""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest
import torch
import torch.utils._pytree as pytree
from models import Case, classify, convnet
from pages import in_notebook

import functrain as ft
from functrain import errors, tree
from functrain.core.state import fields_of


@pytest.fixture
def state() -> ft.TrainState:
    program = ft.program(convnet(), classify, ft.optim.AdamW(lr=0.1), ema=0.9, precision="fp16")
    return program.init(seed=5)


@pytest.mark.row(2)
class TestFrozen:
    def test_attributes_cannot_be_assigned(self, state: ft.TrainState) -> None:
        for name in attrs.fields_dict(ft.TrainState):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(state, name, None)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            state.counters.step = 3

    def test_two_states_are_equal_only_where_they_are_one(self, state: ft.TrainState) -> None:
        # Equality of their leaves is a question of tolerances: functrain.tree.diff.
        again = ft.copy(state)
        for one, other in ((state, again), (state.counters, again.counters)):
            assert one == one
            assert one != other
            assert len({one, other}) == 2

    def test_an_unknown_attribute_is_an_ordinary_error(self, state: ft.TrainState) -> None:
        with pytest.raises(AttributeError, match="no attribute 'parms'"):
            _ = state.parms

    def test_repr_shows_paths_types_and_counts(self, state: ft.TrainState) -> None:
        text = repr(state)
        assert "TrainState(step=0, epoch=0, batch=0" in text
        assert "1.weight  f32[4,1,3,3]" in text
        assert "2.num_batches_tracked  i64[] = 0" in text
        assert "params: 6 tensors" in text

    def test_repr_is_a_tree_of_what_holds_tensors_and_the_rest_in_a_line(self) -> None:
        sgd = ft.optim.SGD(lr=0.1, momentum=0.9)
        program = ft.program(torch.nn.Linear(2, 3, bias=False), classify, sgd)
        assert repr(program.init(seed=3)).splitlines() == [
            "TrainState(step=0, epoch=0, batch=0; 4 tensors, 14 elements, 60 B)",
            "  params: 1 tensor, 6 elements, 24 B",
            "    weight  f32[3,2]",
            "  buffers: {}",
            "  optimizer: 2 tensors, 7 elements, 28 B",
            "    step  f32[] = 0.0",
            "    momentum_buffer",
            "      weight  f32[3,2]",
            "  scheduler: {}",
            "  ema: None",
            "  loss_scale: None",
            "  rng: Rng(seed=3)",
            "  counters: 1 tensor, 1 element, 8 B",
            "    step     0",
            "    epoch    0",
            "    batch    0",
            "    samples  0",
            "    empty    0",
            "    skipped  i64[] = 0",
        ]

    def test_html_is_complete(self, state: ft.TrainState) -> None:
        html = in_notebook(state)
        assert "<b>TrainState</b>" in html
        assert re.search(r"<details[^>]* open[^>]*><summary[^>]*>params", html)
        assert html.count("<details") == html.count("</details>")
        for name in state.params:
            assert name in html


class TestPytree:
    def test_every_leaf_is_seen_by_its_path(self, state: ft.TrainState) -> None:
        ours = {tree.path_string(path): leaf for path, leaf in tree.items(state)}
        found = {
            ".".join(str(getattr(key, "name", getattr(key, "key", key))) for key in path): leaf
            for path, leaf in pytree.tree_flatten_with_path(state)[0]
        }
        assert {path for path, leaf in ours.items() if leaf is not None} <= found.keys()
        assert all(found[path] is leaf for path, leaf in ours.items() if path in found)

    def test_map_rebuilds_the_state(self, state: ft.TrainState) -> None:
        again = pytree.tree_map(lambda leaf: leaf, state)
        assert isinstance(again, ft.TrainState)
        assert tree.diff(state, again) == []

    def test_vmap_goes_into_it(self, state: ft.TrainState) -> None:
        def shrink(state: ft.TrainState, factor: torch.Tensor) -> torch.Tensor:
            return state.params["1.weight"].sum() * factor

        axes = pytree.tree_map(lambda _: None, state)
        out = torch.func.vmap(shrink, in_dims=(axes, 0))(state, torch.tensor([1.0, 2.0]))
        torch.testing.assert_close(out[1], 2 * out[0])


class TestCounters:
    @pytest.mark.parametrize("size", [1, 2])
    def test_a_batch_is_a_step_however_small(self, size: int) -> None:
        loss = lambda model, x: model(x).mean()  # noqa: E731
        program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        state, _ = program.train_step(program.init(), torch.ones(size, 2))
        assert (state.counters.step, state.counters.samples, state.counters.batch) == (1, size, 1)

    def test_an_epoch_begins_with_its_first_batch(self, state: ft.TrainState) -> None:
        counters = attrs.evolve(state.counters, step=5, epoch=2, batch=3, samples=9, empty=1)
        found = counters.next_epoch()
        assert attrs.asdict(found) == {**attrs.asdict(counters), "epoch": 3, "batch": 0}


@pytest.mark.row(58)
def test_a_state_rebuilt_from_its_leaves_trains_to_the_same_bytes(case: Case) -> None:
    program = case.program(ema=0.9)
    state, _ = program.train_step(program.init(), case.batch(0, 4))
    rebuilt = tree.map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, state)
    elsewhere = case.program(ema=0.9)
    first, _ = program.train_step(state, case.batch(1, 4))
    second, _ = elsewhere.train_step(rebuilt, case.batch(1, 4))
    assert tree.diff(first, second) == []


@pytest.mark.row(51)
class TestDonation:
    def test_donated_steps_are_the_pure_steps_bit_for_bit(self, case: Case) -> None:
        program = case.program(ema=0.9, clip_norm=1.0)
        donating = ft.donated(program)
        pure, given = program.init(), program.init()
        for seed in range(5):
            pure, _ = program.train_step(pure, case.batch(seed, 4))
            given, _ = donating.train_step(given, case.batch(seed, 4))
        assert tree.diff(pure, given) == []

    def test_the_memory_is_reused_and_the_old_state_gone(self, case: Case) -> None:
        donating = ft.donated(case.program())
        kept, _ = donating.train_step(donating.init(), case.batch(1, 4))
        state, _ = donating.train_step(donating.init(), case.batch(1, 4))
        memory = {path: p.data_ptr() for path, p in fields_of(state)["params"].items()}
        new, _ = donating.train_step(state, case.batch(0, 4))
        assert {path: p.data_ptr() for path, p in new.params.items()} == memory
        for use in (lambda: state.params, lambda: repr(state), lambda: ft.copy(state)):
            with pytest.raises(errors.DonatedStateError, match=r"functrain\.copy"):
                use()
        with pytest.raises(errors.DonatedStateError):
            donating.train_step(state, case.batch(0, 4))
        again, _ = donating.train_step(kept, case.batch(0, 4))
        assert tree.diff(new, again) == []

    def test_a_step_that_raises_consumes_nothing(self) -> None:
        loss = lambda model, x: (model(x) * x.sum()).mean()  # noqa: E731
        donating = ft.donated(ft.program(torch.nn.Linear(2, 1), loss, ft.optim.AdamW(lr=0.1)))
        state = donating.init()
        before = ft.copy(state)
        with pytest.raises(errors.NonFiniteError):
            donating.train_step(state, torch.full((2, 2), float("nan")))
        assert tree.diff(before, state) == []

    def test_a_step_that_fails_while_it_writes_consumes_the_state(self) -> None:
        class Failing(ft.EMA):
            def update_(self, ema: Any, params: Any, due: bool = True) -> None:
                if ema["updates"] == 1:
                    raise KeyError("mine")
                super().update_(ema, params, due)

        loss = lambda model, x: model(x).mean()  # noqa: E731
        sgd = ft.optim.SGD(lr=0.1)
        donating = ft.donated(ft.program(torch.nn.Linear(2, 1), loss, sgd, ema=Failing(0.9)))
        state, _ = donating.train_step(donating.init(), torch.ones(3, 2))
        with pytest.raises(KeyError, match="mine"):
            donating.train_step(state, torch.ones(3, 2))
        with pytest.raises(errors.DonatedStateError):
            _ = state.params
