"""A program: three pure functions made from a module, a loss and an optimizer.

Read :meth:`Program.train_step` first; it is the whole idea. The host part, on plain
numbers, is here; the device part, on dicts of tensors, is in ``step.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor

from functrain.core import first_step, learning_rate, nonfinite, step
from functrain.core.batch import Batch
from functrain.core.batch_splitting import split_step
from functrain.core.initial_state import Patterns, Rename, initial_state
from functrain.core.loss import Metrics, reported, unmeasured
from functrain.core.recipe import StaticParts
from functrain.core.schedule import Mode
from functrain.core.state import Donation, TrainState, made_by, with_fields, without_samples
from functrain.core.state_reader import StateReader
from functrain.core.step import device_state
from functrain.errors.nearest import unknown_attribute


def _values(params: Any) -> Any:
    """Return the values that ``init`` was given."""
    return params


@attrs.frozen(eq=False, repr=False)
class Program(StateReader):
    """``init``, ``train_step`` and ``eval_step``, and the recipe they were built from.

    A program holds nothing that changes. It unpacks as its three functions, and a transformation
    (``compiled``, ``donated``, ...) makes another program from it.

    Attributes:
        fixed: the recipe, the module as a function, the paths that are trained.
        schedules: the learning-rate schedule, or one by parameter group.
        device_step: the device part of ``train_step``.
        donates: whether ``train_step`` consumes the state it is given.
        zero_rate: ``warn``, ``raise`` or ``ignore`` where a schedule has ended at a rate of zero.
        sharded: the device step, where several processes make it.
        read: returns the values of what ``init`` is given as ``params``. ``functrain.program``
            hands in a function that reads paths; the core reads no files.
        in_phases: whether the device step changes in the course of a run.

    Example:
        >>> import functrain as ft, torch
        >>> from torch import nn
        >>> loss = lambda model, batch: (model(batch) ** 2).mean()
        >>> init, train_step, eval_step = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> state = init(seed=0)
        >>> later, metrics = train_step(state, torch.ones(4, 2))
        >>> state.counters.step, later.counters.step, sorted(metrics)
        (0, 1, ['grad_norm', 'loss', 'lr'])
    """

    fixed: StaticParts
    schedules: learning_rate.Schedules
    device_step: step.AnyDeviceStep
    donates: bool = False
    zero_rate: Literal["warn", "raise", "ignore"] = "warn"
    sharded: step.PlacedStep | None = None
    read: Callable[[Any], Any] = _values
    in_phases: ClassVar[bool] = False

    def __repr__(self) -> str:
        lines = [f"  {name}: {value}" for name, value in self.recipe.rows()]
        count = sum(self.fixed.model.params[path].numel() for path in self.fixed.trainable)
        return "\n".join([f"Program({count:,} trained parameters)", *lines])

    @property
    def not_schedules(self) -> tuple[str, ...]:
        """The keys of ``state.scheduler`` that belong to no schedule."""
        return ()

    def __getattr__(self, name: str) -> Any:
        from functrain.diagnosis.other_names import PROGRAM_ATTRIBUTES

        raise unknown_attribute("Program", name, dir(type(self)), PROGRAM_ATTRIBUTES)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.train_step, self.eval_step))

    def init(
        self,
        seed: int = 0,
        params: Mapping[str, Tensor] | str | os.PathLike[str] | None = None,
        device: torch.device | str | None = None,
        *,
        only: Patterns | None = None,
        rename: Rename | None = None,
    ) -> TrainState:
        """Return the state before the first step.

        Args:
            seed: root of all randomness in training; with a model factory also of the weights.
            params: pretrained values by path, such as a ``state_dict()``; or the path of a run, a
                checkpoint or a file of them, see :func:`functrain.checkpoint.weights`.
            device: where the state goes; by default where the module's parameters are.
            only: patterns or a predicate (path, tensor) of the model's names that ``params`` must
                have; the model keeps its own values of the others, and what else ``params`` has is
                left out. By default all.
            rename: the beginnings of names in ``params`` that the model calls otherwise,
                ``{"backbone.": "trunk."}``, the longest first; or a function from name to name.

        Returns:
            A new state that shares no memory with the module, ``params`` or any other state.

        Raises:
            ParameterMismatchError: names or shapes of ``params`` do not fit; all are listed.
            ConfigurationError: the seed is no whole number, or ``params`` no dict of tensors; or
                ``only`` or ``rename`` matches no name.
        """
        values = self.read(params)
        made = initial_state(self.fixed, self.schedules, seed, values, device, only, rename)
        return self.place(made)

    def place(self, state: TrainState) -> TrainState:
        """Return a state as the steps of a sharded program take it; all processes call it.

        Args:
            state: whole or placed, equal on every process; not changed.
        """
        return state if self.sharded is None else self.sharded.place(state)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Make one optimizer update, as a pure function.

        Args:
            state: where training stands; not changed (a donated program consumes it).
            batch: any batch that ``loss`` takes, on any device; or ``MicroBatches``. With
                ``accumulate=k`` one batch is cut into k micro-batches.

        Returns:
            (next state, metrics). Metrics are 0-dim tensors: ``loss`` and ``grad_norm`` (before
            clipping) on the state's device, ``lr`` on the host, and those of ``Loss.metrics``.

        Raises:
            UnsupportedError: ``state`` is something else, or of a population; or the call is below
                ``torch.compile`` or a transformation of ``torch.func``.
            ParameterMismatchError: the state is of another model; or the step failed, and it is of
                another program.
            NonFiniteError: loss or gradients are not finite and ``nonfinite="raise"``.
            LossError: the loss is no scalar or does not depend on a trainable parameter.
            ImpurityError: the loss wrote to the batch, and did not do so in the first steps.

        Warns:
            AnomalyWarning: loss or gradients are not finite, the step does not raise, and
                ``detect_anomaly=True``.
            ScheduleEndedWarning: a schedule has ended with a rate of zero.
            RecipeChangedWarning: the state has the curve of a schedule of another length.
            FunctrainWarning: autocast is on around a program in float32, without effect.
        """
        first_step.check(self, state, batch, step.is_eager(self.device_step))
        given, parts = self.split(state, batch)
        if not given.samples:
            return without_samples(state, given), unmeasured()
        scheduler, rng, counters = state.scheduler, state.rng, state.counters
        old, number = device_state(state), counters.step
        stream, donation = rng.stream("step", number), Donation(state) if self.donates else None
        # A step that detects anomalies may have to be repeated from the state.
        lent = None if self.recipe.detect_anomaly else donation
        try:
            lr, ema_due = self.rate(scheduler, number), self.is_ema_due(number)
            new, outputs = self.device_step(old, parts, lr, ema_due, lent, stream)
        except Exception as error:
            from functrain.diagnosis.step_errors import explain_step

            explain_step(error, self, state, number, parts)
            raise
        if (self.must_be_finite and not outputs["finite"]) or self.recipe.detect_anomaly:
            self.report(number, old, parts, outputs, stream, donation)
        nonfinite.refuse_stuck(number, outputs, new["loss_scale"])
        maker, counters = outputs.get("maker"), counters.after(given, new.pop("skipped"))
        if donation is not None:
            donation.take()
            maker = maker or donation.maker  # of a skipped update
        scheduler = learning_rate.advance(self.schedules, scheduler, outputs["loss"])
        after = TrainState(**new, scheduler=scheduler, rng=rng, counters=counters)
        return made_by(maker, self.fixed.model, after), reported(outputs, lr)

    def warm(self, state: TrainState, batch: Batch) -> None:
        """Compile the step for a state and a batch like these, without making one.

        The first step of a compiled program does so otherwise. An eager program has nothing to do.

        Args:
            state: not changed, nor consumed.
            batch: see :meth:`train_step`; only its structure, shapes and dtypes matter. One
                without samples makes no step, so there is nothing to compile for it.

        Raises:
            CaptureError: the step is no graph; the message names the line of the user's code.
            CompilationError: the compiler failed.
        """
        first_step.require_state(state, batch)
        parts = split_step(batch, self.recipe.accumulate).parts
        if parts and isinstance(self.device_step, step.Warmable):
            number = state.counters.step
            lr = learning_rate.rate(self.schedules, state.scheduler, number)
            self.device_step.warm(device_state(state), parts, lr, self.is_ema_due(number))

    def split(self, state: TrainState, batch: Batch) -> tuple[Any, Any]:
        """Return the numbers of a step's batch, and its parts as the device step takes them."""
        if self.sharded is None:
            given = split_step(batch, self.recipe.accumulate)
            return given, given.parts
        self.sharded.refuse_unplaced(state)
        shared = self.sharded.shared(batch, self.recipe.accumulate)
        return shared, shared

    def rate(self, scheduler: learning_rate.SchedulerState, number: int) -> learning_rate.Rate:
        """Return the learning rate of step ``number``, and report a schedule that ended at zero."""
        return learning_rate.rate_of_step(self.schedules, scheduler, number, self.zero_rate)

    def is_ema_due(self, number: int) -> bool:
        """Return whether a step, counted from 0, moves the average."""
        return self.recipe.ema is not None and self.recipe.ema.due(number + 1)

    def leaves(self) -> dict[str, Program]:
        """Return the programs of modules in this one, by the prefix of their paths in a state."""
        return {"": self}

    def map_leaves(self, function: Callable[[Program], Program]) -> Program:
        """Return the program with another one for each of :meth:`leaves`."""
        return function(self)

    def map_states(
        self, function: Callable[[Program, TrainState], TrainState], state: TrainState
    ) -> TrainState:
        """Return the state with another one for the state of each of :meth:`leaves`."""
        return function(self, state)

    def observe(
        self, state: TrainState, metric: float | None, mode: Mode | None = None
    ) -> TrainState:
        """Report a metric of an evaluation to the schedule (``Plateau``, say, reacts to it).

        Args:
            state: not changed.
            metric: ``None`` where it was not measured.
            mode: whether less (``"min"``) or more (``"max"``) of it is better, for a schedule whose
                own ``mode`` was not given; it is taken for a loss otherwise.

        Raises:
            ConfigurationError: more is better, and a schedule of torch, or one within a schedule
                of your own, has no ``mode``.
        """
        scheduler = learning_rate.observe(self.schedules, state.scheduler, metric, mode)
        return with_fields(state, scheduler=scheduler)

    def with_horizon(self, state: TrainState, steps: int) -> TrainState:
        """Fill in the run's length where a schedule left it open; what is set already stays."""
        scheduler = learning_rate.with_total_steps(self.schedules, state.scheduler, steps)
        return with_fields(state, scheduler=scheduler)
