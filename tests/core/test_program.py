"""The step: purity over kinds of models, equality with ordinary PyTorch, and its policies."""

from __future__ import annotations

import copy
import random
import re
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import Case, classify, convnet, mlp
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.utils.checkpoint import checkpoint

import functrain as ft
from functrain import errors, tree
from functrain.core.optimizer import Optimizer
from functrain.optim.wrapping import Wrapper


def everything_global() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state(),
        "random": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
    }


@pytest.mark.row(1)
class TestPurity:
    def test_inputs_and_globals_stay_the_same_bytes(self, case: Case) -> None:
        program = case.program(ema=0.9, clip_norm=1.0)
        state, batch = program.init(3), case.batch(0, 5)
        for _ in range(2):
            state, _ = program.train_step(state, batch)
        before = copy.deepcopy([tree.flatten(state), batch, everything_global()])
        after, _ = program.train_step(state, batch)
        program.eval_step(state, batch)
        program.eval_step(state, batch, weights="ema")
        assert tree.diff(before, [tree.flatten(state), batch, everything_global()]) == []
        assert after.counters.step == 3

    def test_the_same_inputs_give_the_same_bytes(self, case: Case) -> None:
        program = case.program(ema=0.9)
        state, batch = program.init(3), case.batch(0, 5)
        first, first_metrics = program.train_step(state, batch)
        torch.manual_seed(1234)
        second, second_metrics = program.train_step(state, batch)
        assert tree.diff([first, first_metrics], [second, second_metrics]) == []

    def test_a_second_program_of_the_same_module_gives_the_same_bytes(self, case: Case) -> None:
        states = []
        for _ in range(2):
            program = case.program()
            state = program.init(3)
            for seed in range(3):
                state, _ = program.train_step(state, case.batch(seed, 4))
            states.append(state)
        assert tree.diff(*states) == []

    def test_old_and_new_state_share_no_memory_that_is_written(self, case: Case) -> None:
        program = case.program(ema=0.9)
        state = program.init(0)
        new, _ = program.train_step(state, case.batch(0, 4))
        old_memory = {leaf.data_ptr() for _, leaf in tensors(state) if leaf.numel()}
        shared = [path for path, leaf in tensors(new) if leaf.data_ptr() in old_memory]
        assert [path for path in shared if path[:2] != ("counters", "skipped")] == []

    def test_the_users_module_is_never_touched(self, case: Case) -> None:
        torch.manual_seed(0)
        module = case.model().eval()
        before = copy.deepcopy([module.state_dict(), vars(module)["training"]])
        program = ft.program(module, case.loss, ft.optim.AdamW(lr=0.1))
        state = program.init()
        state, _ = program.train_step(state, case.batch(0, 4))
        program.eval_step(state, case.batch(0, 4))
        assert tree.diff(before, [module.state_dict(), vars(module)["training"]]) == []
        assert all(p.grad is None for p in module.parameters())

    def test_changing_the_module_afterwards_does_not_change_the_program(self) -> None:
        module = mlp()
        program = ft.program(module, classify, ft.optim.SGD(lr=0.1))
        before = program.init()
        with torch.no_grad():
            module[0].weight.zero_()
        assert tree.diff(before, program.init()) == []

    def test_a_loss_that_pops_from_its_batch_and_writes_into_it(self) -> None:
        def loss(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
            x = batch.pop("x")
            return model(x.mul_(2)).square().mean()

        program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        batch = {"x": torch.ones(3, 2)}
        program.train_step(program.init(), batch)
        assert batch["x"].tolist() == [[1.0, 1.0]] * 3

    def test_results_are_detached(self, case: Case) -> None:
        program = case.program(ema=0.9)
        state, metrics = program.train_step(program.init(), case.batch(0, 4))
        assert not any(leaf.requires_grad for _, leaf in tensors([state, metrics]))


def tensors(value: Any) -> list[tuple[tree.Path, torch.Tensor]]:
    return [(path, leaf) for path, leaf in tree.items(value) if isinstance(leaf, torch.Tensor)]


@pytest.mark.row(3)
class TestAgainstOrdinaryPyTorch:
    @pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"clip_value": 0.01}])
    def test_ten_steps_are_the_plain_loop_bit_for_bit(self, case: Case, options: Any) -> None:
        torch.manual_seed(0)
        module = case.model()
        program = ft.program(module, case.loss, ft.optim.AdamW(lr=1e-2), **options)
        state = program.init(seed=7)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, fused=True)
        for step in range(10):
            batch = case.batch(step, 6)
            torch.default_generator.manual_seed(state.rng.stream("step", step))
            value = plain_step(module, case, copy.deepcopy(batch), optimizer, options)
            state, metrics = program.train_step(state, batch)
            assert tree.diff(value, metrics["loss"]) == [], step
        ours = {**state.params, **state.buffers}
        theirs = {
            **{path: p.detach() for path, p in module.named_parameters()},
            **dict(module.named_buffers()),
        }
        assert tree.diff(theirs, {path: ours[path] for path in theirs}) == []

    @pytest.mark.row(12)
    def test_modes_are_those_of_the_step(self) -> None:
        modes = []

        class Watching(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                modes.append((self.training, torch.is_grad_enabled()))
                return super().forward(x)

        loss = lambda model, batch: model(batch).square().mean()  # noqa: E731
        program = ft.program(Watching(2, 1).eval(), loss, ft.optim.SGD(lr=0.1))
        state, _ = program.train_step(program.init(), torch.ones(3, 2))
        program.eval_step(state, torch.ones(3, 2))
        with torch.no_grad():
            program.train_step(state, torch.ones(3, 2))
        assert modes == [(True, True), (False, False), (True, True)]

    @pytest.mark.row(12)
    def test_a_module_that_keeps_its_norms_frozen_keeps_them(self) -> None:
        class FrozenNorm(nn.Sequential):
            def train(self, mode: bool = True) -> FrozenNorm:
                super().train(mode)
                self[1].eval()
                return self

        module = FrozenNorm(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        program = ft.program(module, classify, ft.optim.SGD(lr=0.1))
        state = program.init()
        new, _ = program.train_step(state, (torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])))
        assert tree.diff(state.buffers, new.buffers) == []

    def test_methods_and_attributes_of_the_users_class_are_there(self) -> None:
        class Model(nn.Module):
            scale = 3.0

            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(2))
                self.cached = [self.weight]

            def energy(self, x: torch.Tensor) -> torch.Tensor:
                return self.scale * (x * self.cached[0]).square().sum()

        program = ft.program(Model(), lambda m, x: m.energy(x), ft.optim.SGD(lr=0.1))
        state, metrics = program.train_step(program.init(), torch.ones(2))
        assert metrics["loss"].item() == 6.0
        torch.testing.assert_close(state.params["weight"], torch.tensor([0.4, 0.4]))

    def test_tensor_hooks_on_parameters_run(self) -> None:
        module = nn.Linear(2, 1, bias=False)
        module.weight.register_hook(lambda grad: grad * torch.tensor([[1.0, 0.0]]))
        loss = lambda model, x: model(x).sum()  # noqa: E731
        program = ft.program(module, loss, ft.optim.SGD(lr=1.0))
        state = program.init()
        new, _ = program.train_step(state, torch.ones(1, 2))
        moved = (state.params["weight"] - new.params["weight"]).tolist()
        assert moved == [[1.0, 0.0]]

    @pytest.mark.parametrize("first", [True, False])
    def test_reentrant_checkpointing_is_refused_and_never_loses_gradients(
        self, first: bool
    ) -> None:
        class Reentrant(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                inner, outer = (self.a, self.b) if first else (self.b, self.a)
                x = x.requires_grad_() if first else outer(x)
                x = checkpoint(inner, x, use_reentrant=True)
                return outer(x) if first else x

        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        program = ft.program(Reentrant(), loss, ft.optim.SGD(lr=0.1))
        with pytest.raises(errors.ModelError, match="use_reentrant=False"):
            program.train_step(program.init(), torch.ones(2, 4))

    def test_a_parameter_the_loss_does_not_use_stays(self) -> None:
        module = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})
        loss = lambda model, x: model["used"](x).sum()  # noqa: E731
        program = ft.program(module, loss, ft.optim.AdamW(lr=0.1, weight_decay=0.5))
        state = program.init()
        new, _ = program.train_step(state, torch.ones(1, 2))
        unused = ["unused.weight", "unused.bias"]
        kept = [{path: s.params[path] for path in unused} for s in (state, new)]
        assert tree.diff(*kept) == []

    def test_parameters_without_requires_grad_are_frozen(self) -> None:
        module = mlp()
        module[0].requires_grad_(False)
        program = ft.program(module, classify, ft.optim.AdamW(lr=0.1), ema=0.9)
        state = program.init()
        new, _ = program.train_step(state, (torch.randn(4, 6), torch.tensor([0, 1, 2, 0])))
        assert set(state.optimizer["exp_avg"]) == set(state.ema["params"]) == {"3.weight", "3.bias"}
        assert new.params["0.weight"] is state.params["0.weight"]
        assert not torch.equal(new.params["3.weight"], state.params["3.weight"])


def plain_step(
    module: nn.Module, case: Case, batch: Any, optimizer: torch.optim.Optimizer, options: Any
) -> torch.Tensor:
    module.train()
    optimizer.zero_grad()
    returned = case.loss(module, batch)
    value = returned.value if isinstance(returned, ft.Loss) else returned
    value.backward()
    if "clip_norm" in options:
        nn.utils.clip_grad_norm_(module.parameters(), options["clip_norm"])
    if "clip_value" in options:
        nn.utils.clip_grad_value_(module.parameters(), options["clip_value"])
    optimizer.step()
    return value.detach()


class TestInit:
    def test_a_factory_makes_weights_from_the_seed(self) -> None:
        program = ft.program(mlp, classify, ft.optim.SGD(lr=0.1))
        torch.manual_seed(5)
        first = program.init(seed=1)
        assert tree.diff(first, program.init(seed=1)) == []
        assert tree.diff(first.params, program.init(seed=2).params) != []

    def test_pretrained_params_are_copied_in(self) -> None:
        program = ft.program(convnet(), classify, ft.optim.SGD(lr=0.1))
        pretrained = convnet().state_dict()
        state = program.init(params=pretrained)
        assert tree.diff({**state.params, **state.buffers}, {**state.params, **pretrained}) == []
        pretrained["1.weight"].zero_()
        assert state.params["1.weight"].abs().sum() > 0

    def test_params_that_do_not_fit_are_listed_all_at_once(self) -> None:
        program = ft.program(mlp(), classify, ft.optim.SGD(lr=0.1))
        wrong = {"0.wieght": torch.zeros(16, 6), "0.bias": torch.zeros(3), "3.bias": torch.zeros(3)}
        with pytest.raises(errors.ParameterMismatchError) as caught:
            program.init(params=wrong)
        text = str(caught.value)
        assert "unexpected '0.wieght' (did you mean '0.weight'?)" in text
        assert "missing '3.weight'" in text
        assert "'0.bias' has shape [3], expected [16]" in text

    def test_second_names_of_tied_weights_are_accepted(self) -> None:
        from models import TinyTransformer, predict_next

        program = ft.program(TinyTransformer(), predict_next, ft.optim.SGD(lr=0.1))
        donor = TinyTransformer()
        state = program.init(params=donor.state_dict())
        assert tree.diff(state.params["embed.weight"], donor.head.weight.detach()) == []
        assert "head.weight" not in state.params

    def test_other_values_under_a_second_name_are_refused(self) -> None:
        from models import TinyTransformer, predict_next

        program = ft.program(TinyTransformer(), predict_next, ft.optim.SGD(lr=0.1))
        values = TinyTransformer().state_dict()
        values["head.weight"] = values["head.weight"] + 1
        with pytest.raises(errors.ParameterMismatchError, match=r"head\.weight is another name"):
            program.init(params=values)

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (nn.LazyLinear(3), "has no shape yet"),
            (lambda: 3, "must return an nn.Module"),
            (42, "expected an nn.Module or a callable"),
        ],
    )
    def test_what_is_no_model_is_refused(self, model: Any, message: str) -> None:
        with pytest.raises(errors.ModelError, match=message):
            ft.program(model, classify, ft.optim.SGD(lr=0.1))


@pytest.mark.row(5)
class TestAccumulation:
    @pytest.mark.parametrize("sizes", [[4, 4, 4], [5, 1, 3], [9]])
    def test_micro_batches_are_one_big_batch(self, sizes: list[int]) -> None:
        def loss(model: nn.Module, batch: Any) -> ft.Loss:
            x, y, mask = batch
            each = F.cross_entropy(model(x), y, reduction="none")
            return ft.Loss(
                (each * mask).sum() / mask.sum(), mask.sum(), {"largest": each.sum() / len(each)}
            )

        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double()
        total = sum(sizes)
        data = (
            torch.randn(total, 6, dtype=torch.float64),
            torch.randint(0, 3, (total,)),
            (torch.rand(total) > 0.4).double() + 0.01,
        )
        parts = list(zip(*(column.split(sizes) for column in data), strict=True))
        whole = ft.program(module, loss, ft.optim.SGD(lr=0.5), clip_norm=0.1)
        state = whole.init()
        big, big_metrics = whole.train_step(state, data)
        small, small_metrics = whole.train_step(state, ft.MicroBatches(parts))
        for path, param in big.params.items():
            torch.testing.assert_close(small.params[path], param, rtol=1e-6, atol=0)
        for name in ("loss", "grad_norm"):
            torch.testing.assert_close(small_metrics[name], big_metrics[name], rtol=1e-6, atol=0)
        assert small.counters.step == 1
        assert small.counters.batch == len(sizes)
        assert small.counters.samples == total

    @pytest.mark.row(4)
    def test_one_batch_is_cut_and_counts_as_one(self) -> None:
        seen = []

        def loss(model: nn.Module, batch: Any) -> torch.Tensor:
            seen.append((len(batch["x"]), batch["names"], batch["flag"]))
            return model(batch["x"]).square().mean()

        program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), accumulate=3)
        batch = {"x": torch.randn(5, 2), "names": list("abcde"), "flag": None}
        state, _ = program.train_step(program.init(), batch)
        assert seen == [(2, ["a", "b"], None), (2, ["c", "d"], None), (1, ["e"], None)]
        assert (state.counters.step, state.counters.batch, state.counters.samples) == (1, 1, 5)

    def test_a_list_of_loader_batches_and_its_short_tail(self) -> None:
        program = ft.program(mlp(), classify, ft.optim.SGD(lr=0.1), accumulate=3)
        make = lambda n: [torch.randn(n, 6), torch.randint(0, 3, (n,))]  # noqa: E731
        state, _ = program.train_step(program.init(), [make(4), make(2)])
        assert (state.counters.step, state.counters.batch, state.counters.samples) == (1, 2, 6)
        with pytest.raises(errors.ConfigurationError, match="accumulate=3"):
            program.train_step(state, [make(2)] * 4)

    def test_a_plus_and_a_minus_cancel_before_clipping(self) -> None:
        loss = lambda model, x: (model.weight.reshape(()) * x).mean()  # noqa: E731
        module = nn.Linear(1, 1, bias=False)
        program = ft.program(module, loss, ft.optim.SGD(lr=1.0), clip_norm=1.0, accumulate=2)
        state = program.init()
        new, metrics = program.train_step(state, torch.tensor([10.0, -10.0]))
        assert metrics["grad_norm"].item() == 0.0
        assert tree.diff(state.params, new.params) == []

    @pytest.mark.row(5)
    def test_a_micro_batch_without_tokens_does_not_count(self) -> None:
        def loss(model: nn.Module, given: Any) -> ft.Loss:
            x, y = given
            value = F.cross_entropy(model(x), y, ignore_index=-100)
            return ft.Loss(value, weight=(y != -100).sum(), metrics={"copy": value})

        x, y = torch.randn(6, 6), torch.tensor([0, 2, 1, -100, -100, -100])
        found, model = [], mlp()
        for parts in (1, 2):
            program = ft.program(model, loss, ft.optim.SGD(lr=0.1), accumulate=parts)
            found.append(program.train_step(program.init(), (x, y)))
        (big, big_metrics), (small, small_metrics) = found
        torch.testing.assert_close(small.params, big.params, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(small_metrics, big_metrics)
        data = [(x[:3], y[:3]), (x[3:], y[3:])]
        evaluated = ft.evaluate(program, big, data)
        assert evaluated["loss"] == pytest.approx(program.eval_step(big, (x, y))["loss"].item())

    def test_gradients_of_two_micro_batches_are_not_kept_together(self) -> None:
        module = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
        seen: list[weakref.ref[torch.Tensor]] = []
        together: list[int] = []

        def look(grad: torch.Tensor) -> None:
            together.append(sum(other() is not None for other in seen))
            seen.append(weakref.ref(grad))

        for param in module.parameters():
            param.register_hook(look)
        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        program = ft.program(module, loss, ft.optim.SGD(lr=0.1), accumulate=3)
        program.train_step(program.init(), torch.randn(6, 4))
        assert len(together) == 30
        assert max(together) < 10

    def test_each_micro_batch_draws_numbers_of_its_own(self) -> None:
        seen: list[torch.Tensor] = []

        def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.rand(4))
            return model(x).square().mean()

        program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), accumulate=3)
        whole = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        for made in (program, whole):
            made.train_step(made.init(seed=3), torch.ones(6, 2))
        parts, step = seen[:3], seen[3]
        assert torch.equal(parts[0], step)
        assert len({tuple(numbers.tolist()) for numbers in parts}) == 3

    def test_buffers_pass_from_one_micro_batch_to_the_next(self) -> None:
        module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        program = ft.program(module, classify, ft.optim.SGD(lr=0.1), accumulate=4)
        batch = (torch.randn(8, 6), torch.randint(0, 3, (8,)))
        state, _ = program.train_step(program.init(), batch)
        assert state.buffers["1.num_batches_tracked"].item() == 4


@pytest.mark.row(9)
class TestEMA:
    @pytest.mark.parametrize("every", [1, 3])
    def test_equals_torchs_averaged_model(self, every: int) -> None:
        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        torch.manual_seed(0)
        module = convnet()
        averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        ema = ft.EMA(0.9, every=every)
        program = ft.program(module, classify, ft.optim.SGD(lr=0.1), ema=ema)
        state = program.init()
        for step in range(1, 10):
            batch = (torch.randn(4, 1, 4, 4), torch.randint(0, 3, (4,)))
            state, _ = program.train_step(state, batch)
            if step % every == 0:
                module.load_state_dict({**state.params, **state.buffers})
                averaged.update_parameters(module)
            if step == every:
                assert tree.diff(state.ema["params"], state.params) == []
        expected = {path: p.detach() for path, p in averaged.module.named_parameters()}
        assert tree.diff(expected, state.ema["params"]) == []

    @pytest.mark.parametrize(("start", "every"), [(1, 1), (4, 1), (4, 3), (5, 2)])
    def test_of_equal_weights_equals_torchs(self, start: int, every: int) -> None:
        from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

        module = convnet().double()
        averaged = AveragedModel(module, multi_avg_fn=get_swa_multi_avg_fn())
        swa = ft.SWA(start=start, every=every)
        program = ft.program(module, classify, ft.optim.SGD(lr=0.1), ema=swa)
        state = program.init()
        for step in range(1, 12):
            batch = (torch.randn(4, 1, 4, 4).double(), torch.randint(0, 3, (4,)))
            state, _ = program.train_step(state, batch)
            if step % every == 0:
                if step <= start:
                    assert tree.diff(state.ema["params"], state.params) == []
                if step >= start:
                    module.load_state_dict({**state.params, **state.buffers})
                    averaged.update_parameters(module)
        for path, param in averaged.module.named_parameters():
            torch.testing.assert_close(state.ema["params"][path], param.detach())

    def test_is_evaluated_apart_from_the_raw_weights(self) -> None:
        loss = lambda model, x: model(x).mean()  # noqa: E731
        program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=1.0), ema=0.9)
        state = program.init()
        for _ in range(5):
            state, _ = program.train_step(state, torch.ones(3, 2))
        by_hand = F.linear(
            torch.ones(3, 2), state.ema["params"]["weight"], state.ema["params"]["bias"]
        )
        averaged = program.eval_step(state, torch.ones(3, 2), weights="ema")["loss"]
        assert torch.equal(averaged, by_hand.mean())
        assert not torch.equal(averaged, program.eval_step(state, torch.ones(3, 2))["loss"])

    def test_warmup_follows_its_formula(self) -> None:
        ema = ft.EMA(0.99, warmup=True)
        weights = [ema.weight(torch.tensor(n)).item() for n in (0, 1, 5, 10_000)]
        assert weights == pytest.approx([1.0, 1 - 2 / 11, 1 - 6 / 15, 1 - 0.99], rel=1e-12)

    def test_asking_for_weights_there_are_not(self) -> None:
        program = ft.program(mlp(), classify, ft.optim.SGD(lr=0.1))
        batch = (torch.randn(4, 6), torch.randint(0, 3, (4,)))
        with pytest.raises(errors.ConfigurationError, match="keeps no average"):
            program.eval_step(program.init(), batch, weights="ema")
        with pytest.raises(errors.ConfigurationError, match='"params" or "ema"'):
            program.eval_step(program.init(), batch, weights="best")


def poisoned(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A loss that is NaN wherever its batch is."""
    return (model(x) * x.sum()).mean()


@pytest.mark.row(10)
class TestNonFinite:
    def make(self, policy: str, **options: Any) -> ft.Program:
        module = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        optimizer = ft.optim.AdamW(lr=0.1)
        return ft.program(module, poisoned, optimizer, nonfinite=policy, **options)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_raise_names_step_and_leaves(self, bad: float) -> None:
        program = self.make("raise", clip_norm=1.0)
        state, _ = program.train_step(program.init(), torch.randn(4, 2))
        before = ft.copy(state)
        with pytest.raises(errors.NonFiniteError, match=r"step 1: .*0\.weight") as caught:
            program.train_step(state, torch.full((4, 2), bad))
        assert caught.value.step == 1
        assert tree.diff(before, state) == []

    def test_skip_leaves_everything_and_counts(self) -> None:
        program = self.make("skip", ema=0.9)
        state, _ = program.train_step(program.init(), torch.randn(4, 2))
        new, metrics = program.train_step(state, torch.full((4, 2), float("nan")))
        for part in ("params", "buffers", "optimizer", "ema"):
            assert tree.diff(getattr(state, part), getattr(new, part)) == [], part
        assert new.counters.skipped.item() == 1
        assert new.counters.step == 2
        assert not torch.isfinite(metrics["loss"])
        good, _ = program.train_step(new, torch.randn(4, 2))
        assert good.counters.skipped.item() == 1
        assert tree.diff(good.params, state.params) != []

    def test_ignore_goes_on(self) -> None:
        program = self.make("ignore")
        state, _ = program.train_step(program.init(), torch.full((4, 2), float("nan")))
        assert torch.isnan(state.params["0.weight"]).all()


@pytest.mark.row(8)
class TestPrecision:
    @pytest.mark.parametrize(("name", "short"), [("bfloat16", "bf16"), ("float16", "fp16")])
    def test_torchs_names_of_the_dtypes_are_synonyms(self, name: Any, short: str) -> None:
        program = ft.program(nn.Linear(1, 1), poisoned, ft.optim.SGD(lr=0.1), precision=name)
        assert program.recipe.precision == program.recipe.describe()["precision"] == short

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_the_forward_computes_in_it(self, precision: str) -> None:
        seen = []

        def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
            out = model(x)
            seen.append(out.dtype)
            return out.float().square().mean()

        program = ft.program(nn.Linear(4, 2), loss, ft.optim.SGD(lr=0.1), precision=precision)
        state, _ = program.train_step(program.init(), torch.randn(3, 4))
        program.eval_step(state, torch.randn(3, 4))
        assert seen == [{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]] * 2
        assert state.params["weight"].dtype == torch.float32

    def test_overflow_lowers_the_scale_and_skips(self) -> None:
        def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
            return model(x).float().sum() * 100.0

        program = ft.program(nn.Linear(4, 2), loss, ft.optim.SGD(lr=0.1), precision="fp16")
        state = program.init()
        assert state.loss_scale["scale"].item() == 65536.0
        scales, moved = [], []
        for _ in range(12):
            new, _ = program.train_step(state, torch.ones(1, 4))
            moved.append(tree.diff(state.params, new.params) != [])
            scales.append(new.loss_scale["scale"].item())
            state = new
        assert scales[:3] == [32768.0, 16384.0, 8192.0]
        assert not any(moved[:3])
        assert moved[-1]
        assert state.counters.skipped.item() == moved.count(False)

    def test_the_scale_is_that_of_torchs_scaler(self) -> None:
        from functrain.core import precision

        scaler = torch.amp.GradScaler("cpu", growth_interval=precision.GROWTH_INTERVAL)
        scale = precision.initial_loss_scale("fp16", torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        weight = nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([weight], lr=0.0)
        for step in range(6100):
            bad = bool(torch.rand((), generator=generator) < 0.0005) or step == 5
            weight.grad = None
            scaler.scale((weight * (float("inf") if bad else 1.0)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            scale = precision.next_loss_scale(scale, torch.tensor(not bad), torch.tensor(bad))
            assert scale["scale"].item() == scaler.get_scale(), step

    def test_gradients_do_not_depend_on_the_scale(self) -> None:
        torch.manual_seed(0)
        module = nn.Linear(4, 2)
        loss = lambda model, x: model(x).float().square().mean()  # noqa: E731
        program = ft.program(module, loss, ft.optim.SGD(lr=0.1), precision="fp16", accumulate=2)
        state = program.init()
        state = attrs.evolve(state, loss_scale={**state.loss_scale, "scale": torch.tensor(8.0)})
        other = attrs.evolve(state, loss_scale={**state.loss_scale, "scale": torch.tensor(64.0)})
        x = torch.randn(6, 4)
        first, second = (program.train_step(s, x)[0].params for s in (state, other))
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


@pytest.mark.row(11)
def test_an_empty_batch_is_skipped_with_a_warning_and_counted() -> None:
    program = ft.program(mlp(), classify, ft.optim.SGD(lr=0.1), ema=0.9)
    state = program.init()
    empty = (torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    with pytest.warns(errors.EmptyBatchWarning, match="no samples"):
        new, metrics = program.train_step(state, empty)
    assert (new.counters.step, new.counters.empty, new.counters.batch) == (0, 1, 1)
    assert tree.diff(state.params, new.params) == []
    assert torch.isnan(metrics["loss"])


class TestBadLosses:
    @pytest.mark.parametrize(
        ("loss", "message"),
        [
            (lambda model, x: model(x), "must be a scalar"),
            (lambda model, x: 3.0, "must return a scalar tensor"),
            (lambda model, x: None, "must return a scalar tensor"),
            (lambda model, x: x.mean(), "does not depend on any trainable parameter"),
            (lambda model, x: model(x).mean().detach(), "does not depend on any"),
            (lambda model, x: model(x).argmax(), "floating-point"),
            (lambda model, x: ft.Loss(model(x).mean(), metrics={"loss": 1.0}), "may not use"),
            (lambda model, x: ft.Loss(model(x).mean(), metrics={"step": 1.0}), "may not use"),
            (lambda model, x: ft.Loss(model(x).mean(), metrics={"epoch": 1.0}), "may not use"),
            (lambda model, x: ft.Loss(model(x).mean(), metrics={"lr.0": 1.0}), "may not use"),
            (lambda model, x: ft.Loss(model(x).mean(), metrics={1: 1.0}), "by name, got 1"),
            (lambda model, x: ft.Loss(model(x).mean(), metrics={"a": 1j * x.sum()}), "complex64"),
            (lambda model, x: ft.Loss(model(x).mean(), metrics={"a": x}), "'a' of functrain.Loss"),
        ],
    )
    def test_are_named(self, loss: Any, message: str) -> None:
        program = ft.program(nn.Linear(2, 2), loss, ft.optim.SGD(lr=0.1))
        with pytest.raises(errors.LossError, match=message):
            program.train_step(program.init(), torch.randn(3, 2))

    def test_an_error_in_the_loss_leaves_the_program_usable(self) -> None:
        def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
            if len(x) == 1:
                raise KeyError("mine")
            return model(x).square().mean()

        program = ft.program(nn.Linear(2, 2), loss, ft.optim.SGD(lr=0.1))
        state = program.init()
        expected, _ = program.train_step(state, torch.ones(3, 2))
        with pytest.raises(KeyError, match="mine"):
            program.train_step(state, torch.ones(1, 2))
        again, _ = program.train_step(state, torch.ones(3, 2))
        assert tree.diff(expected, again) == []

    def test_options_may_be_of_numpy(self) -> None:
        program = ft.program(
            mlp(), classify, ft.optim.SGD(lr=0.1), accumulate=np.int64(2), ema=np.float32(0.5)
        )
        assert program.recipe.accumulate == 2
        assert program.recipe.ema == ft.EMA(0.5)

    @pytest.mark.parametrize("kind", [ft.optim.SGD, ft.optim.AdamW])
    def test_a_rate_beyond_floats_is_refused(self, kind: Any) -> None:
        with pytest.raises(errors.ConfigurationError, match="lr: expected a finite number"):
            kind(lr=10**400)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"clip_norm": 0.0}, "clip_norm"),
            ({"clip_value": -1.0}, "clip_value"),
            ({"accumulate": 0}, "accumulate"),
            ({"accumulate": 2.0}, "accumulate"),
            ({"nonfinite": "explode"}, "nonfinite"),
            ({"precision": "int8"}, "precision: .*bf16"),
            ({"trainable": "nothing.*"}, "trainable"),
            ({"trainable": ["*.bias", "0.wieght"]}, r"'0\.wieght' .*did you mean '0.weight'"),
        ],
        ids=str,
    )
    def test_options_that_make_no_sense(self, options: Any, message: str) -> None:
        with pytest.raises(errors.ConfigurationError, match=message):
            ft.program(mlp(), classify, ft.optim.SGD(lr=0.1), **options)

    def test_a_loss_with_parameters_of_its_own_is_refused(self) -> None:
        class Temperature(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

            def forward(self, model: nn.Module, batch: Any) -> torch.Tensor:
                return F.cross_entropy(model(batch[0]) * self.scale, batch[1])

        loss = Temperature()
        with pytest.raises(errors.ConfigurationError, match=r"Temperature .*\['scale'\]"):
            ft.program(mlp(), loss, ft.optim.SGD(lr=0.1))
        ft.program(mlp(), loss.requires_grad_(False), ft.optim.SGD(lr=0.1))


class Centered(nn.Module):
    """Fills a buffer in its first forward."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.register_buffer("mean", None, persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mean is None:
            self.mean = x.mean(0).detach()
        return self.linear(x - self.mean)


class Held(nn.Module):
    """Reads its weight from where nn.Module does not keep it."""

    def __init__(self, hold: str) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        weight = self.linear.weight
        if hold == "attribute":
            object.__setattr__(self, "own", weight)
        elif hold == "nested list":
            self.own = [[weight]]
        elif hold == "tuple":
            self.own = [(weight, 1)]
        elif hold == "method":
            self.own = self.weight
        else:
            self.own = lambda: self.linear.weight

    def weight(self) -> torch.Tensor:
        return self.linear.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own: Any = self.own
        while isinstance(own, list | tuple):
            own = own[0]
        return self.linear(x) + F.linear(x, own() if callable(own) else own)


class TestTensorsHeldElsewhere:
    @pytest.mark.parametrize("factory", [False, True])
    @pytest.mark.parametrize("hold", ["attribute", "nested list", "method", "function"])
    def test_they_are_the_state_s(self, hold: str, factory: bool) -> None:
        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        make = lambda: Held(hold)  # noqa: E731
        program = ft.program(make if factory else make(), loss, ft.optim.SGD(lr=0.1))
        state, x = program.init(), torch.ones(3, 2)
        module = Held("method")
        for _ in range(2):
            module.load_state_dict(state.params)
            expected = torch.autograd.grad(loss(module, x), list(module.parameters()))
            after, _ = program.train_step(state, x)
            for old, new, grad in zip(
                state.params.values(), after.params.values(), expected, strict=True
            ):
                torch.testing.assert_close(old - 0.1 * grad, new)
            state = after

    def test_a_copy_that_would_share_a_function_is_not_lent(self) -> None:
        program = ft.program(Held("function"), classify, ft.optim.SGD(lr=0.1))
        with (
            pytest.raises(errors.ModelError, match=r"'own' of 'Held'.*pass a factory"),
            program.evaluating(program.init()),
        ):
            pass

    def test_a_forward_that_was_put_around_another_is_bound(self) -> None:
        module = nn.Sequential(nn.Linear(2, 1))
        before = module[0].forward
        module[0].forward = lambda x: 2 * before(x)
        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        program = ft.program(module, loss, ft.optim.SGD(lr=0.1))
        state, x = program.init(), torch.ones(3, 2)
        for _ in range(2):
            p = state.params
            expected = 2 * (x @ p["0.weight"].T + p["0.bias"])
            state, metrics = program.train_step(state, x)
            torch.testing.assert_close(metrics["loss"], expected.square().mean())
        with (
            pytest.raises(errors.ModelError, match=r"'forward' of '?0'?.*pass a factory"),
            program.module(state),
        ):
            pass

    @pytest.mark.parametrize("factory", [False, True])
    def test_a_tuple_is_refused(self, factory: bool) -> None:
        made = Held("tuple")
        with pytest.raises(errors.ModelError, match=r"'linear.weight'.*Make it a list"):
            ft.program((lambda: made) if factory else made, classify, ft.optim.SGD(lr=0.1))

    def test_a_hook_that_only_listens_is_none_of_these(self) -> None:
        seen: list[torch.Tensor] = []
        module = nn.Sequential(nn.Linear(2, 1))
        module[0].register_forward_hook(lambda _, __, out: seen.append(out.detach()))
        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        program = ft.program(module, loss, ft.optim.SGD(lr=0.1))
        program.train_step(program.init(), torch.ones(3, 2))
        assert len(seen) == 1


BEGINNINGS = [
    pytest.param(lambda made, state, x: ft.fit(made, [x], until="1 step", state=state), id="fit"),
    pytest.param(lambda made, state, x: next(ft.iterate(made, state, [x])), id="iterate"),
]


class Weighted(Optimizer):
    """An optimizer of someone's own, whose ``init`` looks at values."""

    lr = 0.1

    def init(self, params: Any) -> Any:
        return {"sizes": {path: torch.tensor(value.sum().item()) for path, value in params.items()}}

    def update(self, grads: Any, state: Any, params: Any, lr: Any) -> Any:
        new = {
            path: params[path] - lr * grad * state["sizes"][path] for path, grad in grads.items()
        }
        return {**params, **new}, state

    def update_(self, grads: Any, state: Any, params: Any, lr: Any) -> None:
        for path, grad in grads.items():
            params[path].sub_(lr * grad * state["sizes"][path])

    def eval_params(self, state: Any, params: Any) -> Any:
        return params


def square(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x).square().mean()  # type: ignore[no-any-return]


def one_and_another(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> tuple[ft.Program, ft.TrainState]:
    """A program, and the state of another with the same model."""
    adam = ft.optim.Adam(lr=0.1)
    first, second = (
        ft.program(nn.Linear(3, 2), square, options.pop("optimizer", adam), **options)
        for options in (dict(ours), dict(theirs))
    )
    return first, second.init()


FEWER = {"trainable": ["bias"]}
ADAPTIVE = ft.optim.groups([("bias", ft.optim.SGD(lr=0.1)), ("*", ft.optim.Adam(lr=0.1))])
OTHERS = [
    pytest.param({}, FEWER, "missing 'optimizer.exp_avg.weight'", True, id="trains fewer"),
    pytest.param(FEWER, {}, "unexpected 'optimizer.exp_avg.weight'", False, id="trains more"),
    pytest.param(
        {}, {"optimizer": ft.optim.SGD(lr=0.1)}, "missing 'optimizer.exp_avg.bias'", True, id="SGD"
    ),
    pytest.param(
        {"optimizer": ADAPTIVE}, {}, "unexpected 'optimizer.exp_avg.bias'", True, id="groups"
    ),
    pytest.param(
        {"optimizer": Weighted()},
        {},
        "missing 'optimizer.sizes.bias'",
        True,
        id="a class of one's own",
    ),
    pytest.param({"ema": 0.9}, {}, "missing 'ema.params.bias'", True, id="no average"),
    pytest.param({}, {"ema": 0.9}, "unexpected 'ema.params.bias'", True, id="an average"),
    pytest.param({"precision": "fp16"}, {}, "missing 'loss_scale.scale'", True, id="precision"),
    pytest.param(
        {"optimizer": ft.optim.from_torch(torch.optim.Adam, lr=0.1)},
        {},
        "missing 'optimizer.group.amsgrad'",
        True,
        id="a class of torch",
    ),
    pytest.param(
        {"optimizer": ft.optim.from_torch(torch.optim.SGD, lr=0.1)},
        {"optimizer": ft.optim.from_torch(torch.optim.Adam, lr=0.1)},
        "missing 'optimizer.group.momentum'",
        True,
        id="another class of torch",
    ),
]


class TestStatesOfOtherPrograms:
    @pytest.mark.parametrize("run", BEGINNINGS)
    @pytest.mark.parametrize(("ours", "theirs", "said", "fails"), OTHERS)
    def test_no_run_begins_with_the_tensors_of_another_optimizer(
        self, ours: Any, theirs: Any, said: str, fails: bool, run: Any
    ) -> None:
        program, state = one_and_another(ours, theirs)
        with pytest.raises(errors.ParameterMismatchError) as caught:
            run(program, state, torch.ones(4, 3))
        assert said in str(caught.value)
        assert "program.init(params={**state.params, **state.buffers})" in str(caught.value)

    @pytest.mark.parametrize(("ours", "theirs", "said", "fails"), OTHERS)
    def test_a_step_that_cannot_be_made_names_the_difference(
        self, ours: Any, theirs: Any, said: str, fails: bool
    ) -> None:
        program, state = one_and_another(ours, theirs)
        if not fails:
            program.train_step(state, torch.ones(4, 3))
            return
        with pytest.raises(errors.ParameterMismatchError) as caught:
            program.train_step(state, torch.ones(4, 3))
        assert said in str(caught.value)
        cause = caught.value.__cause__  # none where the step saw it by itself
        assert cause is None or isinstance(
            cause, KeyError | TypeError | AttributeError | ValueError
        )

    def test_a_step_with_the_state_of_another_model_names_the_parameters(self) -> None:
        program, _ = one_and_another({}, {})
        other = ft.program(nn.Sequential(nn.Linear(3, 2)), square, ft.optim.Adam(lr=0.1))
        with pytest.raises(errors.ParameterMismatchError, match=r"unexpected '0\.weight'"):
            program.train_step(other.init(), torch.ones(4, 3))

    @pytest.mark.parametrize(("ours", "theirs", "said", "fails"), OTHERS)
    def test_the_remedy_helps(self, ours: Any, theirs: Any, said: str, fails: bool) -> None:
        program, state = one_and_another(ours, theirs)
        begun = program.init(params={**state.params, **state.buffers})
        begun = attrs.evolve(begun, counters=state.counters, rng=state.rng)
        until = "8 steps"  # in fp16, the first ones overflow
        assert ft.fit(program, [torch.ones(4, 3)], until=until, state=begun).reason == "max_steps"

    def test_an_optimizer_whose_state_grows_is_left_alone(self) -> None:
        made = ft.optim.from_torch(torch.optim.Adam, lr=0.1)
        program, state = one_and_another({"optimizer": made}, {"optimizer": made})
        run = ft.fit(program, [torch.ones(4, 3)], until="2 steps", state=state)
        assert ft.fit(program, [torch.ones(4, 3)], until="4 steps", state=run.state).reason

    @pytest.mark.parametrize("run", BEGINNINGS)
    @pytest.mark.parametrize(
        ("other", "said"),
        [
            (nn.Linear(3, 4), "'weight' has shape [4, 3], expected [2, 3]"),
            (nn.Sequential(nn.Linear(3, 2)), "unexpected '0.weight'"),
            (nn.Linear(3, 2, bias=False), "missing 'bias'"),
        ],
        ids=["shapes", "names", "fewer"],
    )
    def test_no_run_begins_with_one(self, other: nn.Module, said: str, run: Any) -> None:
        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        made = ft.program(nn.Linear(3, 2), loss, ft.optim.SGD(lr=0.1))
        state = ft.program(other, loss, ft.optim.SGD(lr=0.1)).init()
        with pytest.raises(errors.ParameterMismatchError, match=re.escape(said)):
            run(made, state, torch.ones(4, 3))

    @pytest.mark.parametrize("run", BEGINNINGS)
    def test_no_run_begins_with_what_is_no_state(self, run: Any) -> None:
        made = ft.program(nn.Linear(3, 2), lambda *_: 0, ft.optim.SGD(lr=0.1))
        weights: Any = nn.Linear(3, 2).state_dict()
        with pytest.raises(errors.UnsupportedError, match="expected a TrainState, got a"):
            run(made, weights, torch.ones(4, 3))

    def test_another_error_is_not_one_of_the_state(self) -> None:
        def loss(model: nn.Module, batch: Any) -> torch.Tensor:
            return {}["mine"]  # type: ignore[no-any-return]

        program = ft.program(mlp(), loss, ft.optim.SGD(lr=0.1))
        with pytest.raises(KeyError, match="mine") as caught:
            program.train_step(program.init(), torch.ones(2, 4))
        (note,) = caught.value.__notes__  # of where it was raised, not of the state
        assert note.startswith("in the loss, in the step after step 0")


class TestBuffersThatAreNone:
    def test_filling_one_is_refused_at_each_step(self) -> None:
        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        program = ft.program(Centered(True), loss, ft.optim.SGD(lr=0.1))
        for step in (program.train_step, program.eval_step, program.train_step):
            with pytest.raises(errors.ModelError, match=r"registered \['mean'\]"):
                step(program.init(), torch.ones(3, 2))

    def test_a_cache_may_be_filled(self) -> None:
        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        program = ft.program(Centered(False), loss, ft.optim.SGD(lr=0.1))
        state, _ = program.train_step(program.init(), torch.ones(3, 2))
        assert state.counters.step == 1

    def test_statistics_that_are_not_tracked(self) -> None:
        module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        program = ft.program(module, loss, ft.optim.SGD(lr=0.1))
        state, _ = program.train_step(program.init(), torch.rand(3, 2))
        assert state.buffers == {}


class TestPretrainedValues:
    """Other objects than a state_dict are refused, and the message names the right one."""

    @pytest.fixture
    def program(self) -> ft.Program:
        return ft.program(mlp(), classify, ft.optim.SGD(lr=0.1))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (lambda state: mlp(), r"module\.state_dict\(\)"),
            (lambda state: state, r"one\.evaluating\(state\)"),
            (lambda state: mlp().named_parameters(), "got a generator"),
            (
                lambda state: {n: v.numpy() for n, v in state.params.items()},
                "tensor, got a ndarray",
            ),
            (lambda state: dict(enumerate(state.params.values())), "with the key 0"),
            (
                lambda state: {n: v.to("meta") for n, v in state.params.items()},
                r"'0\.weight'\] has no values",
            ),
        ],
        ids=["module", "state", "pairs", "arrays", "numbers as names", "no values"],
    )
    def test_what_is_no_dict_of_tensors(
        self, program: ft.Program, given: Callable[[ft.TrainState], Any], message: str
    ) -> None:
        with pytest.raises(errors.ConfigurationError, match=message):
            program.init(params=given(program.init()))

    @pytest.mark.parametrize(
        ("given", "remedy"),
        [
            ({"model": mlp().state_dict(), "optimizer": {"state": {}}}, "checkpoint['model']"),
            ({"epoch": 3, "state_dict": mlp().state_dict()}, "checkpoint['state_dict']"),
            ({"epoch": 3, "model": mlp()}, "checkpoint['model'].state_dict()"),
            ({"generator": mlp().state_dict()}, "checkpoint['generator']"),
            (
                {"params": mlp().state_dict(), "buffers": {"a": torch.ones(1)}},
                "{**checkpoint['params'], **checkpoint['buffers']}",
            ),
        ],
    )
    def test_a_checkpoint_with_more_in_it(
        self, program: ft.Program, given: Any, remedy: str
    ) -> None:
        with pytest.raises(errors.ConfigurationError, match=re.escape(f"(params={remedy})")):
            program.init(params=given)

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "net.body."])
    def test_a_prefix(self, program: ft.Program, prefix: str) -> None:
        given = {prefix + name: value for name, value in program.init().params.items()}
        with pytest.raises(errors.ParameterMismatchError, match="consume_prefix_in_") as caught:
            program.init(params=given)
        assert f"begin with {prefix!r}" in str(caught.value)
        consume_prefix_in_state_dict_if_present(given, prefix)
        program.init(params=given)

    def test_only_a_shape_that_differs(self, program: ft.Program) -> None:
        given = {**program.init().params, "3.bias": torch.zeros(99)}
        with pytest.raises(errors.ParameterMismatchError, match=r"do not fit the model:\n"):
            program.init(params=given)

    def test_a_prefix_of_the_model(self) -> None:
        inner = mlp()
        wrapped = nn.ModuleDict({"backbone": inner})
        program = ft.program(wrapped, classify, ft.optim.SGD(lr=0.1))
        with pytest.raises(errors.ParameterMismatchError, match=r"names begin with 'backbone\.'"):
            program.init(params=inner.state_dict())

    def test_a_wrapper_within_the_names(self) -> None:
        model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        program = ft.program(model, classify, ft.optim.SGD(lr=0.1))
        given = {
            name.replace("body.", "body._orig_mod."): value
            for name, value in model.state_dict().items()
        }
        with pytest.raises(errors.ParameterMismatchError, match=r"'_orig_mod\.' is in the names"):
            program.init(params=given)

    def test_other_names_have_no_such_hint(self, program: ft.Program) -> None:
        with pytest.raises(errors.ParameterMismatchError) as caught:
            program.init(params={"other": torch.ones(1)})
        assert str(caught.value).startswith("the given params do not fit the model:")


class Changing(nn.Module):
    """A linear layer that does something to its buffers in the forward."""

    table: torch.Tensor

    def __init__(self, change: Any, persistent: bool = True) -> None:
        super().__init__()
        self.linear, self.change = nn.Linear(2, 2), change
        self.register_buffer("table", torch.ones(2), persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.change(self)
        return self.linear(x)


def _removed(module: nn.Module) -> None:
    del module.table


class TestBuffersThatComeAndGo:
    """A buffer without a place in the state would silently be lost by every checkpoint."""

    def program(self, change: Any, persistent: bool = True) -> ft.Program:
        loss = lambda model, x: model(x).square().mean()  # noqa: E731
        return ft.program(Changing(change, persistent), loss, ft.optim.SGD(lr=0.1))

    def test_one_that_is_registered(self) -> None:
        program = self.program(lambda model: model.register_buffer("mean", torch.ones(2)))
        for step in (program.train_step, program.eval_step, program.train_step):
            with pytest.raises(errors.ModelError, match=r"registered \['mean'\]"):
                step(program.init(), torch.ones(3, 2))

    def test_one_that_is_registered_below(self) -> None:
        program = self.program(lambda model: model.linear.register_buffer("mean", torch.ones(2)))
        with pytest.raises(errors.ModelError, match=r"registered \['linear\.mean'\]"):
            program.train_step(program.init(), torch.ones(3, 2))

    def test_a_cache_may_be_registered(self) -> None:
        change = lambda model: model.register_buffer("mask", torch.ones(2), persistent=False)  # noqa: E731
        program = self.program(change)
        state = program.init()
        for _ in range(2):
            state, _ = program.train_step(state, torch.ones(3, 2))
        assert list(state.buffers) == ["table"]

    @pytest.mark.parametrize("persistent", [True, False])
    @pytest.mark.parametrize("change", [lambda model: setattr(model, "table", None), _removed])
    def test_one_that_goes(self, change: Any, persistent: bool) -> None:
        program = self.program(change, persistent)
        for _ in range(2):
            with pytest.raises(errors.ModelError, match=r"removed \['table'\]"):
                program.train_step(program.init(), torch.ones(3, 2))


class TestGroups:
    def test_members_have_their_own_rates(self) -> None:
        optimizer = ft.optim.groups(
            [
                ("*.bias", ft.optim.SGD(lr=ft.schedules.Linear(lr=1.0, end=0.0, steps=2))),
                ("0.*", ft.optim.Frozen()),
                ("*", ft.optim.AdamW(lr=0.01)),
            ]
        )
        program = ft.program(mlp(), classify, optimizer, ema=0.5)
        batch = (torch.randn(4, 6), torch.randint(0, 3, (4,)))
        state = program.init()
        new, metrics = program.train_step(state, batch)
        assert metrics["lr"].item() == metrics["lr.0"].item() == 1.0
        assert metrics["lr.2"].item() == 0.01
        assert tree.diff(state.params["0.weight"], new.params["0.weight"]) == []
        assert "0.weight" not in new.ema["params"]
        _, metrics = program.train_step(new, batch)
        assert metrics["lr.0"].item() == 0.5

    def test_freezing_everything_is_an_error(self) -> None:
        with pytest.raises(errors.ConfigurationError, match="no parameter is trainable"):
            ft.program(mlp(), classify, ft.optim.groups([("*", ft.optim.Frozen())]))

    def test_a_parameter_no_pattern_matches_is_named(self) -> None:
        optimizer = ft.optim.groups([("*.bias", ft.optim.SGD(lr=0.1))])
        with pytest.raises(errors.ConfigurationError, match=r"0\.weight"):
            ft.program(mlp(), classify, optimizer)


def test_a_program_unpacks_as_its_three_functions() -> None:
    init, train_step, eval_step = ft.program(mlp(), classify, ft.optim.SGD(lr=0.1))
    state, metrics = train_step(init(), (torch.randn(4, 6), torch.randint(0, 3, (4,))))
    assert set(metrics) == {"loss", "lr", "grad_norm", "accuracy"}
    assert set(eval_step(state, (torch.randn(4, 6), torch.randint(0, 3, (4,))))) == {
        "loss",
        "accuracy",
    }


def test_no_warnings_of_ours_in_an_ordinary_step(case: Case) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = case.program(clip_norm=1.0, ema=0.9)
        state, _ = program.train_step(program.init(), case.batch(0, 4))
    assert state.counters.step == 1


@pytest.mark.row(20)
@pytest.mark.parametrize("transform", [lambda program: program, ft.donated])
def test_a_spike_of_the_training_loss_lowers_the_learning_rate(transform: Any) -> None:
    spike = ft.schedules.Spike(0.1, factor=0.5, burn_in=3, cooldown=2, threshold=5.0)
    scaled = ft.optim.groups([("*bias", ft.optim.SGD(spike)), ("*", ft.optim.SGD(0.01))])
    program = transform(
        ft.program(torch.nn.Linear(1, 1), lambda model, b: b.mean() + 0 * model(b).sum(), scaled)
    )
    state, rates = program.init(), []
    for loss in [3.0, 2.9, 2.8, 9.0, 2.7, 2.6]:
        state, metrics = program.train_step(state, torch.full((2, 1), loss))
        rates.append(float(metrics["lr.0"]))
    assert rates == [0.1, 0.1, 0.1, 0.1, 0.05, 0.05]
    assert program.observe(state, 100.0).scheduler == state.scheduler  # evaluations are not shown


@pytest.mark.row(20)
def test_a_plateau_is_not_shown_training_losses() -> None:
    sgd = ft.optim.SGD(ft.schedules.Plateau(0.1, patience=0))
    program = ft.program(torch.nn.Linear(1, 1), lambda model, b: model(b).square().mean(), sgd)
    state = program.init()
    for _ in range(3):
        state, _ = program.train_step(state, torch.ones(2, 1))
    assert state.scheduler["best"] is None
    state = program.observe(program.observe(state, 1.0), 2.0)
    assert state.scheduler["lr"] == pytest.approx(0.01)


@attrs.frozen
class Noisy(Wrapper):
    optimizer: ft.optim.Optimizer

    def regrad(self, grads: Any, own: Any, params: Any) -> Any:
        return {path: grad + torch.randn_like(grad) for path, grad in grads.items()}, own


@pytest.mark.parametrize("way", ["eager", "captured"])
def test_an_optimizer_draws_from_the_stream_of_the_step_too(way: str) -> None:
    noisy = Noisy(ft.optim.SGD(0.1))
    model = torch.nn.Linear(3, 2)
    program = ft.program(model, lambda m, x: m(x).square().mean(), noisy)
    program = ft.compiled(program, backend="eager") if way == "captured" else program
    state, x = program.init(), torch.ones(4, 3)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(program.train_step(state, x)[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert tree.diff(*found) == []


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_an_out_of_memory_error_names_the_shapes_of_the_batch(micro_batches: int) -> None:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return model(batch["x"]).mean() + torch.empty(2**60)[0]

    program = ft.program(nn.Linear(3, 2), loss, ft.optim.SGD(lr=0.1), accumulate=micro_batches)
    state = program.init()
    batch = {"x": torch.zeros(8, 3), "label": "text"}
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator") as caught:
        program.train_step(state, batch)
    (note,) = caught.value.__notes__
    assert f"in the step after step 0, with the batch {{x: f32[{8 // micro_batches},3]}}" in note
    assert ("the first of 2 micro-batches" in note) == (micro_batches == 2)
    assert state.counters.step == 0


def test_other_errors_of_the_loss_are_not_about_memory() -> None:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        raise RuntimeError("mine")

    program = ft.program(nn.Linear(3, 2), loss, ft.optim.SGD(lr=0.1))
    with pytest.raises(RuntimeError, match="mine") as caught:
        program.train_step(program.init(), torch.zeros(8, 3))
    (note,) = caught.value.__notes__
    assert "memory" not in note


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_a_module_that_was_compiled_by_its_owner(how: str) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(4, 2)
    module: nn.Module = copy.deepcopy(plain)
    if how == "wrapped":
        module = torch.compile(module, backend="eager")  # type: ignore[assignment]
    else:
        module.compile(backend="eager")
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    found = []
    for one in (plain, module):
        program = ft.program(one, loss, ft.optim.SGD(lr=0.1))
        state = program.init()
        for _ in range(3):
            state, metrics = program.train_step(state, torch.ones(3, 4))
        found.append(metrics["loss"])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("average", [{"decay": "abc"}, {"decay": "0.9"}, {"decay": None}])
def test_an_average_takes_numbers(average: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="decay"):
        ft.EMA(**average)


@pytest.mark.parametrize("rho", ["x", "0.1", None])
def test_a_sharpness_takes_numbers(rho: Any) -> None:
    program = ft.program(nn.Linear(2, 1), lambda m, x: m(x).mean(), ft.optim.SGD(lr=0.1))
    with pytest.raises(errors.ConfigurationError, match="rho"):
        ft.sharpness_aware(program, rho=rho)


@pytest.mark.parametrize("weight", [0, torch.tensor(0.0)], ids=str)
def test_micro_batches_of_weight_0_are_named(weight: Any) -> None:
    loss = lambda model, x: ft.Loss(model(x).square().mean(), weight)  # noqa: E731
    program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), accumulate=2)
    with pytest.raises(errors.LossError, match="weight"):
        program.train_step(program.init(), torch.ones(4, 2))
