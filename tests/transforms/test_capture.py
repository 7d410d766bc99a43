"""A captured step does what its Python does, or is refused."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from compiling import mean_square
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import functrain as ft
from functrain import tree
from functrain.errors import CaptureError, FallbackWarning

pytestmark = pytest.mark.row(50)

X = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))


def both(model: Any, loss: Any = mean_square, **options: Any) -> tuple[ft.Program, ft.Program]:
    """A program, and its captured form."""
    eager = ft.program(model, loss, ft.optim.SGD(0.1), **options)
    return eager, ft.compiled(eager, backend="eager")


def assert_same_step(eager: ft.Program, captured: ft.Program, batch: Any = X) -> None:
    expected, metrics = eager.train_step(eager.init(), batch)
    for program in (captured, ft.donated(captured)):
        found, found_metrics = program.train_step(program.init(), batch)
        torch.testing.assert_close(found_metrics, metrics, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.params, expected.params, rtol=1e-5, atol=1e-6)


class TwoDraws(nn.Module):
    """Two dropouts in one checkpoint: the recomputation draws both again."""

    def __init__(self, drop: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.drop = nn.Linear(6, 6), nn.Linear(6, 6), drop

    def forward(self, x: Tensor) -> Tensor:
        def body(x: Tensor) -> Tensor:
            return self.drop(self.b(self.drop(torch.tanh(self.a(x)))))

        return checkpoint(body, x, use_reentrant=False)


@pytest.mark.parametrize(
    "drop",
    [
        nn.Dropout(0.5),
        lambda x: torch.native_dropout(x, 0.5, True)[0],  # as it is on CUDA
        lambda x: x * torch.rand_like(x) + torch.randn(6),
    ],
)
def test_a_recomputation_draws_what_was_drawn(drop: Any) -> None:
    # The gradients are those of the loss that is reported: of one set of masks, not of two.
    eager, captured = both(TwoDraws(drop))
    state = captured.init()
    after, metrics = captured.train_step(state, X)
    step = sum((after.params[p] - state.params[p]).square().sum() for p in state.params)
    torch.testing.assert_close(step.sqrt() / 0.1, metrics["grad_norm"])
    assert_same_step(eager, captured)


def test_checkpointed_encoder_layers_with_dropout() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.layer, x[None], use_reentrant=False)

    _, captured = both(Model())
    assert captured.train_step(captured.init(), X)[1]["loss"].isfinite()


class Leaving(nn.Module):
    """A module that does something to itself in each forward."""

    def __init__(self, does: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.does = nn.Linear(6, 6), does
        self.calls, self.many = 0, list[int]()
        self.by_name = {"k": 1}
        self.tensor = torch.ones(())
        self.found: Any = None

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.does(self)


def in_number(m: Any) -> Any:
    m.calls += 1
    return m.calls


def in_list(m: Any) -> Any:
    m.many.append(1)
    return len(m.many)


def in_dict(m: Any) -> Any:
    m.by_name["k"] += 1
    return m.by_name["k"]


def in_tensor(m: Any) -> Any:
    m.tensor = m.tensor * 2
    return m.tensor


def in_place(m: Any) -> Any:
    return m.tensor.mul_(2)


CHANGED = "attribute {!r} of the module was changed"


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (in_number, CHANGED.format("calls")),
        (in_list, CHANGED.format("many")),
        (in_dict, CHANGED.format("by_name")),
        (in_tensor, CHANGED.format("tensor")),
        (in_place, "neither parameter, buffer nor batch is written to"),
    ],
)
def test_a_module_that_counts_is_refused_and_put_back(does: Any, message: str) -> None:
    eager, captured = both(Leaving(does))
    with pytest.raises(CaptureError, match=message):
        captured.train_step(captured.init(), X)
    shell = captured.fixed.model.module
    assert (shell.calls, shell.many, shell.by_name) == (0, [], {"k": 1})
    assert type(shell.tensor) is Tensor
    assert eager.eval_step(eager.init(), X)["loss"].isfinite()


def test_what_a_forward_leaves_for_the_loss_to_find_is_no_harm() -> None:
    def leave(m: Any) -> Any:
        m.found = m.linear.weight.square().mean()
        m.by_name.setdefault("table", torch.arange(6.0))
        m.many = [m.found]
        return m.by_name["table"]

    def loss(m: Any, x: Tensor) -> Tensor:
        return mean_square(m, x) + m.found + sum(m.many)

    eager, captured = both(Leaving(leave), loss)
    captured.train_step(captured.init(), X)
    shell = captured.fixed.model.module
    assert (shell.many, shell.by_name, shell.found) == ([], {"k": 1}, None)
    captured.eval_step(captured.init(), X)
    assert_same_step(eager, captured)


def test_a_tensor_from_outside_is_not_written_to() -> None:
    stats = torch.zeros(())

    def loss(m: Any, x: Tensor) -> Tensor:
        stats.add_(1)
        return mean_square(m, x)

    _, captured = both(nn.Linear(6, 6), loss)
    with pytest.raises(CaptureError, match="neither parameter, buffer nor batch"):
        captured.train_step(captured.init(), X)


def test_seeding_within_a_step_is_refused() -> None:
    def loss(m: Any, x: Tensor) -> Tensor:
        torch.manual_seed(7)
        return mean_square(m, x * torch.rand_like(x))

    _, captured = both(nn.Linear(6, 6), loss)
    with pytest.raises(CaptureError, match="was seeded within the step"):
        captured.train_step(captured.init(), X)


def test_draws_of_an_operation_of_ones_own_are_in_the_stream() -> None:
    @torch.library.custom_op("functrain_tests::noise", mutates_args=())
    def noise(x: Tensor) -> Tensor:
        return torch.rand_like(x)

    noise.register_fake(torch.empty_like)
    _, captured = both(nn.Linear(6, 6), lambda m, x: mean_square(m, x + noise(x)))
    state = captured.init()
    before = torch.get_rng_state()
    losses = [captured.train_step(state, X)[1]["loss"] for _ in range(2)]
    assert losses[0] == losses[1]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("way", [ft.donated, lambda p: ft.compiled(p, backend="eager")])
def test_a_loss_that_is_a_parameter_is_that_of_its_step(way: Any) -> None:
    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(3.0))

    program = ft.donated(way(ft.program(Scalar(), lambda m, x: m.w, ft.optim.SGD(1.0))))
    run = ft.fit(program, [X] * 4, until="4 steps")
    assert run.history["loss"] == [3, 2, 1, 0]


def test_fit_leaves_alone_what_a_loss_keeps() -> None:
    def program() -> ft.Program:
        kept: list[Tensor] = []

        def loss(m: nn.Module, x: Tensor) -> Tensor:
            away = sum((p - q).square().sum() for p, q in zip(m.parameters(), kept, strict=False))
            kept[:] = [p.detach() for p in m.parameters()]
            return mean_square(m, x) + away

        torch.manual_seed(0)
        return ft.program(nn.Linear(6, 6), loss, ft.optim.SGD(0.1))

    made = program()
    state = made.init()
    for _ in range(5):
        state, _ = made.train_step(state, X)
    run = ft.fit(program(), [X] * 5, until="5 steps")
    assert tree.diff(run.state.params, state.params) == []


@pytest.mark.slow
@pytest.mark.long
def test_a_batch_may_hold_tensors_of_the_state_and_lazy_views() -> None:
    names = [f"{layer}.weight" for layer in (0, 1, 2)]

    def loss(m: nn.Module, given: Any) -> Tensor:
        x, held = given
        # Each parameter by what is held of the next two: what one update writes, others read.
        mixed = [
            own * torch.softmax(one, 0).sum(1).exp() * one.T - 2 * two.sum()
            for own, one, two in zip(
                m.parameters(),
                (held[names[k]] for k in (1, 2, 0)),
                (held[names[k]] for k in (2, 0, 1)),
                strict=True,
            )
        ]
        return m(x).mean() + sum(part.square().mean() for part in mixed)

    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(6, 6, bias=False) for _ in names))
    # Without the finite check nothing keeps a graph from writing before all is read.
    eager = ft.program(model, loss, ft.optim.SGD(0.1), nonfinite="ignore")
    donating = ft.donated(ft.compiled(eager))  # a graph that is not compiled writes last
    state = donating.init()
    negated = torch.randn(6, 6, dtype=torch.complex64).conj().imag
    expected = eager.init()
    for x in (X, negated):
        expected, metrics = eager.train_step(expected, (x, expected.params))
        state, found = donating.train_step(state, (x, dict(state.params)))
        torch.testing.assert_close(found["grad_norm"], metrics["grad_norm"], rtol=1e-4, atol=0)
    torch.testing.assert_close(state.params, expected.params, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("of", [lambda t: t[:, :6], lambda t: t[:1, :6].expand(6, 6)])
@pytest.mark.parametrize("donates", [False, True])
def test_parameters_that_do_not_fill_their_memory(of: Any, donates: bool) -> None:
    eager, captured = both(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)))
    state = eager.init()
    state = attrs.evolve(state, params={**state.params, "0.weight": of(torch.ones(6, 12))})
    expected, _ = eager.train_step(state, X)
    program = ft.donated(captured) if donates else captured
    found, _ = program.train_step(state, X)
    torch.testing.assert_close(found.params, expected.params)


def test_the_same_tensors_under_other_names_are_another_state() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    eager, captured = both(model)
    state, _ = captured.train_step(captured.init(), X)
    swapped = {"0": "2", "2": "0"}
    params = {swapped[path[0]] + path[1:]: tensor for path, tensor in state.params.items()}
    other = attrs.evolve(state, params=params)
    found, expected = captured.train_step(other, X)[1], eager.train_step(other, X)[1]
    torch.testing.assert_close(found["loss"], expected["loss"])


def test_captures_in_several_threads() -> None:
    failures: list[BaseException] = []

    def capture() -> None:
        try:
            _, captured = both(nn.Linear(6, 6))
            captured.train_step(captured.init(), X)
        except BaseException as error:
            failures.append(error)

    enabled = torch.backends.mkldnn.enabled
    threads = [threading.Thread(target=capture) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert torch.backends.mkldnn.enabled == enabled


def test_an_object_in_a_batch_is_refused_or_runs_eagerly() -> None:
    eager, captured = both(nn.Linear(6, 6), lambda m, b: mean_square(m, b["x"]))
    with pytest.raises(CaptureError, match="there is a object in the batch"):
        captured.train_step(captured.init(), {"x": X, "y": object()})
    falling = ft.compiled(eager, backend="eager", fallback=True)
    with pytest.warns(FallbackWarning, match="there is a object in the batch"):
        state, _ = falling.train_step(falling.init(), {"x": X, "y": object()})
    assert state.counters.step == 1


def test_nan_in_a_batch_is_one_form() -> None:
    _, captured = both(nn.Linear(6, 6), lambda m, b: mean_square(m, b[0]))
    for _ in range(3):
        captured.train_step(captured.init(), (X, float("nan")))
    assert len(captured.device_step.graphs) == 1  # type: ignore[attr-defined]


def test_the_line_at_fault_of_code_without_a_file_and_through_a_library() -> None:
    found: dict[str, Any] = {}
    exec("def deciding(m, x):\n    return m(x).mean() if x.sum() > 0 else m(x).sum()", found)
    _, captured = both(nn.Linear(6, 6), found["deciding"])
    with pytest.raises(CaptureError) as caught:
        captured.train_step(captured.init(), X)
    assert str(caught.value.where).startswith("<string>:2, in deciding")

    def through(m: Any, x: Tensor) -> Tensor:
        return m(x).mean() * functools.reduce(max, list(x[0]))  # here

    _, captured = both(nn.Linear(6, 6), through)
    with pytest.raises(CaptureError) as caught:
        captured.train_step(captured.init(), X)
    assert "# here" in str(caught.value.where)


@pytest.mark.slow
@pytest.mark.long
def test_a_library_has_the_weights_of_a_teacher_in_its_name(tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        teacher = nn.Linear(6, 6)

        def loss(m: nn.Module, x: Tensor, teacher: nn.Module = teacher) -> Tensor:
            return (m(x) - teacher(x).detach()).square().mean()

        torch.manual_seed(9)
        eager = ft.program(nn.Linear(6, 6), loss, ft.optim.SGD(0.1))
        ahead = ft.compiled(eager, directory=tmp_path)
        found, expected = (p.train_step(p.init(), X)[1]["loss"] for p in (ahead, eager))
        torch.testing.assert_close(found, expected)
    assert len(list(tmp_path.glob("*.pt2"))) == 2
