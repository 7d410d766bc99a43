"""Every planted fault is found and named, and what is clean passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import planted
import pytest
import torch
from models import CASES, Case
from planted import (
    ONES,
    SEEN,
    TABLE,
    clean,
    linear,
)

import functrain as ft
from functrain.testing import (
    Cut,
    ImpurityError,
    check_complete,
    check_listener,
    check_loss,
    check_optimizer,
    check_pure,
    check_resumes,
    check_schedule,
    global_state,
)
from functrain.testing.interruptions import as_cuts
from functrain.testing.run_parts import RunPart, arguments

# To capture a graph takes a second, so only of two models.
WAYS = [
    pytest.param(case, way, id=f"{case.name}-{way}")
    for case in CASES
    for way in ("plain", "donated", "capture", "capture and donated")
    if case.name in ("mlp", "counting") or "capture" not in way
]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = global_state.capture()
    yield
    SEEN.clear()
    found = global_state.changed(before, global_state.capture())
    assert [each for each in found if "generator" not in each] == []


@pytest.mark.row(52)
@pytest.mark.row(58)
@pytest.mark.parametrize(("check", "says"), TABLE, ids=[says[:60] for _, says in TABLE])
@pytest.mark.filterwarnings("ignore::functrain.errors.ModuleStateWarning")
def test_a_planted_fault_is_found_and_named(check: Callable[[], object], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check()


class TestClean:
    @pytest.mark.row(52)
    @pytest.mark.sweep("way")
    @pytest.mark.parametrize(("case", "way"), WAYS)
    def test_steps_are_pure(self, case: Case, way: str) -> None:
        program = case.program(ema=0.9, clip_norm=1.0)
        program = ft.compiled(program, backend="eager") if "capture" in way else program
        program = ft.donated(program) if "donated" in way else program
        state = program.init(3)
        check_pure(program, state, case.batch(0, 4))
        assert state.params  # a donated program consumed copies

    @pytest.mark.slow
    @pytest.mark.long
    def test_a_step_that_inductor_compiled_is_pure(self) -> None:
        program = ft.compiled(linear())
        check_pure(program, program.init(), ONES)
        donating = ft.donated(ft.checked(program))
        donating.train_step(donating.init(), ONES)

    def test_a_check_draws_from_no_generator(self) -> None:
        program = linear()
        arguments = {"program": program, "data": [ONES], "listeners": []}
        assert callable(ft.fit)  # it imports rich, which draws from random once
        before = global_state.capture()
        check_pure(program, program.init(), ONES)
        check_loss(planted.square, program.fixed.model.module, ONES)
        check_complete(program, batch=ONES)
        check_resumes(arguments, steps=3, cuts=[1])
        check_optimizer(ft.optim.SGD(lr=0.1), {"w": torch.ones(2)})
        check_schedule(0.1, 4)
        assert global_state.changed(before, global_state.capture()) == []

    def test_the_users_own_module_may_be_watched(self, case: Case) -> None:
        module = case.model().eval()
        program = ft.program(module, case.loss, ft.optim.AdamW(lr=0.1))
        check_pure(program, program.init(), case.batch(0, 4), module=module)

    def test_frozen_parameters_may_be_shared(self) -> None:
        program = CASES[0].program(trainable="3.*")
        check_pure(program, program.init(), CASES[0].batch(0, 4))

    def test_a_step_that_was_left_out_may_share_all(self) -> None:
        loss = lambda model, batch: model(batch).mean() * float("nan")  # noqa: E731
        program = linear(loss, nonfinite="skip")
        check_pure(program, program.init(), ONES)
        checked = ft.checked(program)
        state, _ = checked.train_step(checked.init(), ONES)
        assert int(state.counters.skipped) == 1

    def test_losses_are_pure(self, case: Case) -> None:
        if case.name == "convnet":  # begins with an activation in place
            with pytest.raises(ImpurityError, match=r"batch\[0\] was changed"):
                check_loss(case.loss, case.model(), case.batch(0, 4))
        else:
            check_loss(case.loss, case.model(), case.batch(0, 4))

    @pytest.mark.row(58)
    def test_states_are_complete(self, case: Case) -> None:
        check_complete(case.program(ema=0.9), batch=case.batch(0, 4))

    @pytest.mark.row(58)
    def test_the_first_batch_of_the_data_is_used(self) -> None:
        check_complete((linear(), [ONES]))

    @pytest.mark.row(53)
    def test_runs_resume(self, case: Case) -> None:
        data = [case.batch(seed, 2 + seed % 3) for seed in range(5)]
        arguments = {"program": case.program(ema=0.9), "data": data, "save_every": "2 steps"}
        check_resumes(arguments, steps=7, cuts=[2, Cut(3, "error"), 6])

    @pytest.mark.parametrize(
        "optimizer",
        [
            ft.optim.SGD(lr=0.1, momentum=0.9),
            ft.optim.AdamW(lr=ft.schedules.Cosine(0.1)),
            ft.optim.Adafactor(lr=0.1),
            ft.optim.Muon(lr=0.1),
            ft.optim.ScheduleFreeAdamW(lr=0.1),
            ft.optim.ClipByBlockRms(ft.optim.SGD(lr=0.1), 0.1),
            ft.optim.Lookahead(ft.optim.Lion(lr=0.1), sync_period=2),
            ft.optim.from_torch(torch.optim.Adagrad, lr=0.1),
            ft.optim.groups([("a", ft.optim.SGD(lr=0.1)), ("*", ft.optim.Adam(lr=0.2))]),
        ],
        ids=lambda optimizer: type(optimizer).__name__,
    )
    def test_optimizers_are_pure(self, optimizer: Any) -> None:
        check_optimizer(optimizer, {"a": torch.ones(3, 2), "b": torch.zeros(2, 4)})

    @pytest.mark.parametrize(
        "schedule",
        [0.1, lambda step: 1 / (1 + step), ft.schedules.Cosine(0.1), ft.schedules.Plateau(0.1)],
    )
    def test_schedules_are_pure(self, schedule: Any) -> None:
        check_schedule(schedule, 30)

    def test_a_listener_may_stop_add_metrics_and_remember(self) -> None:
        class Stopping:
            def __init__(self) -> None:
                self.events: list[Any] = []

            def on_batch_end(self, event: Any) -> dict[str, float]:
                self.events.append(event)
                return {"mine": 1.0}

            def on_epoch_end(self, event: Any) -> ft.Stop | None:
                return ft.Stop() if event.epoch == 1 else None

        listener = Stopping()
        check_listener(listener, linear(), [ONES] * 3, eval_data=[ONES])
        assert len(listener.events) == 6


class TestChecked:
    @pytest.mark.sweep("way")
    @pytest.mark.parametrize(("case", "way"), WAYS)
    def test_the_numbers_are_the_same_under_fit(self, case: Case, way: str) -> None:
        program = case.program(ema=0.9)
        program = ft.compiled(program, backend="eager") if "capture" in way else program
        checked = ft.checked(program)
        checked = ft.donated(checked) if "donated" in way else checked
        data = [case.batch(seed, 4) for seed in range(2)]
        runs = [ft.fit(each, data, until="3 steps") for each in (program, checked)]
        assert ft.tree.diff(runs[0].state, runs[1].state) == []

    @pytest.mark.parametrize("donating", [False, True])
    def test_hidden_state_ends_the_run_at_its_step(self, donating: bool) -> None:
        program = ft.checked(linear(planted.counts_in_a_list))
        program = ft.donated(program) if donating else program
        with pytest.raises(ImpurityError, match="differs between two calls"):
            program.train_step(program.init(), ONES)

    def test_a_donated_step_that_gives_other_numbers(self) -> None:
        program = linear()

        def wrong(state: Any, batches: Any, lr: Any, *rest: Any) -> Any:
            return program.device_step(state, batches, lr * (1 if rest[1] is None else 2), *rest)

        import attrs

        faulty = ft.donated(ft.checked(attrs.evolve(program, device_step=wrong)))
        with pytest.raises(ImpurityError, match="is another with donation than without"):
            faulty.train_step(faulty.init(), ONES)


@pytest.mark.row(53)
class TestResumption:
    def test_with_other_workers(self) -> None:
        check_resumes(clean, steps=8, cuts=[3], workers_after=1)

    def test_a_number_of_workers_that_cannot_be_set_is_an_error(self) -> None:
        with pytest.raises(ft.errors.ConfigurationError, match="number of workers of list"):
            check_resumes((linear(), [ONES]), steps=4, cuts=[Cut(2, workers=1)])

    def test_the_number_of_workers_is_that_of_the_last_cut(self) -> None:
        cuts = as_cuts([Cut(2, workers=0), 3, 1], kill=False, workers=2)
        assert [(cut.step, cut.how, cut.workers) for cut in cuts] == [
            (1, "stop", 2),
            (2, "stop", 0),
            (3, "stop", 2),
        ]
        data = ft.data.Batches(torch.zeros(4, 2), 2)
        part = RunPart("runs", steps=5, cut=None, workers=2, number=1)
        assert arguments({"program": None, "data": data}, part)["data"].workers == 2

    def test_data_that_cannot_be_copied_is_an_error(self) -> None:
        with pytest.raises(ft.errors.ConfigurationError, match="Give a function that returns them"):
            check_resumes((linear(), (x for x in [ONES])), steps=4, cuts=[2])

    @pytest.mark.slow
    @pytest.mark.long
    @pytest.mark.row(34)
    def test_a_process_that_is_killed_and_one_that_stops(self) -> None:
        check_resumes(clean, steps=8, cuts=[Cut(3, "kill"), Cut(6)])

    @pytest.mark.slow
    @pytest.mark.long
    def test_the_order_of_a_set_is_found(self) -> None:
        with pytest.raises(AssertionError, match="with another PYTHONHASHSEED"):
            check_complete(planted.hashing, batch=ONES)

    def test_what_a_fresh_process_cannot_import_is_refused(self) -> None:
        with pytest.raises(ft.errors.ConfigurationError, match='or its name as "module:name"'):
            check_resumes(lambda: clean(), steps=8, cuts=[3], fresh=True)

    @pytest.mark.parametrize("cuts", [[], [8], [3, 9]])
    def test_cuts_outside_the_run_are_refused(self, cuts: list[int]) -> None:
        with pytest.raises(ft.errors.ConfigurationError, match="from 1 to 7"):
            check_resumes(clean, steps=8, cuts=cuts)

    def test_the_error_has_the_step(self) -> None:
        with pytest.raises(ft.errors.ResumptionError) as caught:
            check_resumes((linear(), planted.Forgetful()), steps=8, cuts=[4])
        assert caught.value.step == 5
