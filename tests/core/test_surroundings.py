"""Steps and evaluations below threads, autocast and transformations of their caller."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors
from functrain.core import rng

X = torch.linspace(-1.0, 1.0, 32).reshape(8, 4)


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    return thread, found


class Meeting:
    """A step of one thread, within which another thread uses the generators or the program."""

    def __init__(self, other: Callable[[], Any]) -> None:
        self.other = other
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None
        self.found: list[Any] = []

    def begin(self) -> None:
        if self.thread is None:
            self.thread, self.found = in_thread(lambda: (self.other(), self.ended.set())[0])
            self.ended.wait(0.5)  # as long as it takes to see that the other one waits


def noisy(meeting: Meeting | None) -> ft.Program:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        noise = torch.randn(())
        if meeting is not None and threading.current_thread() is threading.main_thread():
            meeting.begin()
        return (model(batch) * noise * torch.randn(())).square().mean()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    return ft.program(model, loss, ft.optim.AdamW(lr=0.1))


class Samples:
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        return torch.randn(4)


@pytest.mark.parametrize("other", ["step", "evaluation", "samples"])
def test_a_thread_waits_for_the_step_of_another(other: str) -> None:
    alone = noisy(None)
    state, data = alone.init(), ft.data.Batches(Samples(), 4)
    uses: dict[str, Callable[[ft.Program], Any]] = {
        "step": lambda program: program.train_step(state, -X)[0],
        "evaluation": lambda program: program.eval_step(state, -X),
        "samples": lambda program: data[0, 1],
    }
    expected, of_other = alone.train_step(state, X)[0], uses[other](alone)
    meeting = Meeting(lambda: uses[other](program))
    program = noisy(meeting)
    before = torch.get_rng_state()
    after, _ = program.train_step(state, X)
    assert meeting.thread is not None
    meeting.thread.join()
    assert ft.tree.equal(after, expected)
    assert ft.tree.equal(meeting.found[0], of_other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_block_with_a_lent_module_lets_other_threads_go_on() -> None:
    program = noisy(None)
    state = program.init()
    with program.evaluating(state):
        thread, found = in_thread(lambda: program.train_step(state, X)[0])
        thread.join()
    assert ft.tree.equal(found[0], program.train_step(state, X)[0])


@pytest.mark.parametrize("which", ["begins", "ends"])
def test_a_block_of_another_thread_changes_no_draw_of_a_step(which: str) -> None:
    begun, leave = threading.Event(), threading.Event()

    def block() -> None:
        with rng.scoped(7, alone=False):
            begun.set()
            leave.wait()

    with rng.scoped(1):
        expected = [torch.rand(()).item() for _ in range(2)]
    thread = threading.Thread(target=block)
    before = torch.get_rng_state()
    if which == "ends":
        thread.start()
        begun.wait()
    with rng.scoped(1):
        found = [torch.rand(()).item()]
        if which == "ends":
            leave.set()
            thread.join(0.5)  # as long as it takes to see that it waits
        else:
            thread.start()
            begun.wait(0.5)
        found.append(torch.rand(()).item())
    leave.set()
    thread.join()
    assert found == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_a_scope_that_cannot_begin_lets_other_threads_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted() -> Any:
        raise KeyboardInterrupt

    def waited(text: str, kind: type) -> None:
        raise TimeoutError(text)

    with monkeypatch.context() as patch:
        patch.setattr(rng, "generators", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rng.scoped(0).__enter__()
    monkeypatch.setattr(rng, "_PATIENCE", 1.0)
    monkeypatch.setattr(rng, "warn", waited)
    thread, found = in_thread(lambda: rng.scoped(1).__enter__().__exit__(None, None, None))
    thread.join()
    assert found == [None]


def test_a_thread_that_waits_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said = threading.Event()
    monkeypatch.setattr(rng, "_PATIENCE", 0.01)
    monkeypatch.setattr(rng, "warn", lambda text, kind: said.set())
    with rng.scoped(0):
        thread, _ = in_thread(lambda: rng.scoped(1).__enter__().__exit__(None, None, None))
        assert said.wait(60)
    thread.join()


def test_a_fork_does_not_wait_for_a_thread_that_it_has_not_got() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with rng.turn():
            inside.set()
            go_on.wait()

    thread, _ = in_thread(hold)
    inside.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with rng.scoped(0):
            os._exit(0)
    _, status = os.waitpid(child, 0)
    go_on.set()
    thread.join()
    assert status == 0


def squares(model: nn.Module, batch: Any) -> Tensor:
    return model(batch).float().square().mean()


def made(precision: Any = "float32") -> ft.Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    return ft.program(model, squares, ft.optim.SGD(lr=0.1), precision=precision)


@pytest.mark.filterwarnings("ignore:torch.autocast is on")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    "changed",
    [lambda p: p, ft.donated, lambda p: ft.compiled(p, backend="eager")],
    ids=["eager", "donated", "compiled"],
)
def test_the_callers_autocast_is_off_in_a_step(changed: Any, precision: str) -> None:
    program = changed(made(precision))
    expected = program.train_step(program.init(), X)
    for again in (program, changed(made(precision))):  # which was captured before, or is now
        with torch.autocast("cpu", torch.float16):
            found = again.train_step(again.init(), X)
            several, _ = ft.steps(again, again.init(), [X])
            assert torch.get_autocast_dtype("cpu") == torch.float16
            assert torch.is_autocast_enabled("cpu")
        assert ft.tree.equal(found, expected)
        assert ft.tree.equal(several, expected[0])


def test_an_autocast_without_effect_is_reported_once_in_a_loop() -> None:
    program = made()
    state = program.init()
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.warns(errors.FunctrainWarning, match='precision="bf16"'):
            state, _ = program.train_step(state, X)
        program.train_step(state, X)  # of which a warning would be an error here
        half = made("bf16")
        half.train_step(half.init(), X)


@pytest.mark.parametrize("how", ["module", "evaluating"])
def test_a_step_in_a_block_with_a_lent_module_has_its_own_precision(how: str) -> None:
    teacher, student = made("bf16"), made()
    state = student.init()
    with getattr(teacher, how)(teacher.init()) as lent:
        assert lent(X).dtype == torch.bfloat16
        within = student.train_step(state, X), student.eval_step(state, X)
    assert ft.tree.equal(within, (student.train_step(state, X), student.eval_step(state, X)))


def test_the_callers_autocast_is_off_in_custom_steps_and_evaluations() -> None:
    def step(tree: Any, batch: Tensor, rng: Any) -> Any:
        return {"w": tree["w"] + batch.T @ batch}, {}

    custom = ft.custom(lambda seed: {"w": torch.zeros(4, 4)}, step)
    program = made()
    state = program.init()
    with torch.autocast("cpu", torch.bfloat16), program.evaluating(state) as model:
        after, _ = custom.train_step(custom.init(), X)
        assert model(X).dtype == torch.float32
    assert after.tree["w"].dtype == torch.float32


def test_the_callers_autocast_is_off_in_a_block_with_a_lent_module() -> None:
    program = made()
    with torch.autocast("cpu", torch.bfloat16), program.module(program.init()) as lent:
        assert lent(X).dtype == torch.float32


def test_autocast_keeps_no_copies_of_the_parameters_of_a_step() -> None:
    layer = nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        with rng.scoped(0), torch.autocast("cpu", torch.bfloat16):
            layer(X)
        with torch.no_grad():
            layer.weight.zero_()  # a copy that was kept would still have the values of before
            layer.bias.zero_()
        assert not layer(X).any()


def replaced(state: ft.TrainState, weight: Tensor) -> ft.TrainState:
    return attrs.evolve(state, params={**state.params, "0.weight": weight})


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_derivatives_by_torch_func_are_refused_where_they_would_be_zero(transform: Any) -> None:
    program = made()
    state = program.init()
    of: dict[str, Callable[[Any], Any]] = {
        "train_step": lambda x: program.train_step(state, x)[1]["loss"],
        "eval_step": lambda x: program.eval_step(state, x)["loss"],
    }
    for name, function in of.items():
        with pytest.raises(errors.UnsupportedError, match=rf"{name} .*functrain\.differentiable"):
            transform(function)(X)
    with pytest.raises(errors.UnsupportedError, match=r"functrain\.differentiable"):
        transform(lambda w: program.eval_step(replaced(state, w), X)["loss"])(
            state.params["0.weight"]
        )
    assert transform(lambda x: program.eval_step(state, X)["loss"] * x)(torch.ones(())) > 0
    differentiable = ft.differentiable(program, {})
    found = transform(lambda x: differentiable.eval_step(state, x)["loss"])(X)
    assert found.abs().sum() > 0


def test_evaluations_are_mapped_by_vmap() -> None:
    program = made()
    state = program.init()
    found = torch.func.vmap(lambda x: program.eval_step(state, x)["loss"])(torch.stack([X, X]))
    torch.testing.assert_close(found[0], program.eval_step(state, X)["loss"])


@pytest.mark.parametrize(
    "program",
    [made(), ft.compiled(made(), backend="eager"), ft.population(made(), seeds=[0, 1])],
    ids=["eager", "compiled", "population"],
)
@pytest.mark.parametrize("whole", [False, True])
def test_steps_below_torch_compile_are_refused(program: Any, whole: bool) -> None:
    torch.compiler.reset()  # Dynamo remembers a function that it could not trace
    # Of a whole graph Dynamo raises an error of its own, which quotes ours.
    error = torch._dynamo.exc.Unsupported if whole else errors.UnsupportedError
    step = torch.compile(program.train_step, backend="eager", fullgraph=whole)
    with pytest.raises(error, match=r"functrain\.compiled"):
        step(program.init(), X)
