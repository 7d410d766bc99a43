"""A program: three pure functions made from a module, a loss and an optimizer.

Read :meth:`Program.train_step` first; it is the whole idea. The host part, on plain
numbers, is here; the device part, on dicts of tensors, is in ``step.py``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor, nn

from functrain.core import evaluation, learning_rate, nonfinite, precision, step
from functrain.core.accumulation import step_gradients
from functrain.core.batch import Batch, split
from functrain.core.first_step import (
    refuse_compile,
    refuse_derivatives,
    refuse_members,
    refuse_other_model,
    refuse_vmap,
    require_state,
    warn_of_autocast,
)
from functrain.core.global_generators import Draws
from functrain.core.gradients import by_autograd
from functrain.core.loss import LossFunction, Outcome, refuse_weight
from functrain.core.metrics import computed, reported, unmeasured
from functrain.core.pretrained import Patterns, Rename, chosen, load, read
from functrain.core.recipe import Evaluations, Fixed, Recipe
from functrain.core.rng import Rng, checked_seed, scoped
from functrain.core.schedule import Mode
from functrain.core.state import (
    Counters,
    Donation,
    Tensors,
    TrainState,
    made_by,
    without_samples,
)
from functrain.errors import ConfigurationError
from functrain.errors.nearest import unknown_attribute
from functrain.tree import NamedDict

Metrics = dict[str, Tensor]


@attrs.frozen(eq=False, repr=False)
class Program:
    """``init``, ``train_step`` and ``eval_step``, and the recipe they were built from.

    A program holds nothing that changes. It unpacks as its three functions, and a transformation
    (``compiled``, ``donated``, ...) makes another program from it.

    Attributes:
        fixed: the recipe, a private shell of the module, the paths that are trained.
        schedules: the learning-rate schedule, or one by parameter group.
        device_step: the device part of ``train_step``.
        donates: whether ``train_step`` consumes the state it is given.
        zero_rate: ``warn``, ``raise`` or ``ignore`` where a schedule has ended at a rate of zero.
        sharded: the device step, where several processes make it.
        in_phases: whether the device step changes in the course of a run.

    Example:
        >>> import functrain as ft
        >>> loss = lambda model, batch: (model(batch) ** 2).mean()
        >>> init, train_step, eval_step = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> state = init(seed=0)
        >>> later, metrics = train_step(state, torch.ones(4, 2))
        >>> state.counters.step, later.counters.step, sorted(metrics)
        (0, 1, ['grad_norm', 'loss', 'lr'])
    """

    fixed: Fixed
    schedules: learning_rate.Schedules
    device_step: step.DeviceStep
    donates: bool = False
    zero_rate: Literal["warn", "raise", "ignore"] = "warn"
    sharded: step.PlacedStep | None = None
    in_phases: ClassVar[bool] = False

    def __repr__(self) -> str:
        lines = [f"  {name}: {value}" for name, value in self.recipe.rows()]
        count = sum(self.fixed.model.params[path].numel() for path in self.fixed.trainable)
        return "\n".join([f"Program({count:,} trained parameters)", *lines])

    @property
    def not_schedules(self) -> tuple[str, ...]:
        """The keys of ``state.scheduler`` that belong to no schedule."""
        return ()

    @property
    def recipe(self) -> Recipe:
        """The values that the program was built from: hyperparameters and policies."""
        return self.fixed.recipe

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
        seed = checked_seed(seed)
        own, buffers = self.fixed.model.initial(seed)
        if params is not None:
            into = {**own, **buffers}
            given = chosen(self.fixed.model, into, read(params), only, rename)
            loaded = load(self.fixed.model, into, given)
            own, buffers = {p: loaded[p] for p in own}, {b: loaded[b] for b in buffers}
        elif only is not None or rename is not None:
            raise ConfigurationError("only and rename choose among params: give params, too")
        if device is not None:
            own = {path: tensor.to(device) for path, tensor in own.items()}
            buffers = {path: tensor.to(device) for path, tensor in buffers.items()}
        where = next(iter(own.values())).device
        trained = {path: own[path] for path in self.fixed.trainable}
        recipe = self.recipe
        state = TrainState(
            params=own,
            buffers=buffers,
            optimizer=recipe.optimizer.init(trained),
            scheduler=learning_rate.init(self.schedules),
            ema=None if recipe.ema is None else recipe.ema.init(trained),
            loss_scale=precision.initial_loss_scale(recipe.precision, where),
            rng=Rng(seed),
            counters=Counters.initial(where),
        )
        return self.place(state)

    def place(self, state: TrainState) -> TrainState:
        """Return a state as the steps of a sharded program take it; all processes call it.

        Args:
            state: whole or placed, equal on every process; not changed.
        """
        return state if self.sharded is None else self.sharded.place(state)

    def gathered(self, state: TrainState) -> TrainState:
        """Return a state with whole leaves, the opposite of :meth:`place`."""
        return state if self.sharded is None else self.sharded.gathered(state)

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

        Warns:
            AnomalyWarning: loss or gradients are not finite, the step does not raise, and
                ``detect_anomaly=True``.
            ScheduleEndedWarning: a schedule has ended with a rate of zero.
            RecipeChangedWarning: the state has the curve of a schedule of another length.
            FunctrainWarning: autocast is on around a program in float32, without effect.
        """
        refuse_compile()
        require_state(state, batch)
        refuse_members(state)
        refuse_vmap(step.is_eager(self.device_step))
        latest = self.fixed.model.latest
        is_given = not latest.is_it(state)
        if is_given:
            refuse_other_model(self.fixed, state)
            warn_of_autocast(self.fixed)
        if step.is_eager(self.device_step):
            refuse_derivatives("train_step", state, batch)
        given, parts = self.split(state, batch)
        if not given.samples:
            return without_samples(state, given), unmeasured()
        try:
            lr = self.rate(state.scheduler, state.counters.step)
        except KeyError as error:  # groups that the state does not know
            from functrain.diagnosis.fitting_state import explain_schedule

            explain_schedule(error, self.fixed, state)
            raise
        if is_given and self.zero_rate == "warn":  # in a run, fit has warned
            learning_rate.warn_of_overruled(self.schedules, state.scheduler)
        donation = Donation(state) if self.donates else None
        # One that detects anomalies may have to be repeated from the state.
        lent = None if self.recipe.detect_anomaly else donation
        scheduler, rng, counters = state.scheduler, state.rng, state.counters
        tensors, outputs = self._on_device(state, parts, lr, lent)
        updated = TrainState(
            params=tensors["params"],
            buffers=tensors["buffers"],
            optimizer=tensors["optimizer"],
            scheduler=learning_rate.advance(self.schedules, scheduler, outputs["loss"]),
            ema=tensors["ema"],
            loss_scale=tensors["loss_scale"],
            rng=rng,
            counters=counters.after(given, tensors["skipped"]),
        )
        maker = outputs.get("maker")
        if donation is not None:
            donation.take()
            maker = maker or donation.maker  # of a skipped update
        latest.note(updated)
        return made_by(maker, updated), reported(outputs, lr)

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
        require_state(state, batch)
        parts = split(batch, self.recipe.accumulate).parts
        if parts and isinstance(self.device_step, step.Warmable):
            number = state.counters.step
            lr = learning_rate.rate(self.schedules, state.scheduler, number)
            self.device_step.warm(step.device_state(state), parts, lr, self.is_ema_due(number))

    def split(self, state: TrainState, batch: Batch) -> tuple[Any, Any]:
        """Return the numbers of a step's batch, and its parts as the device step takes them."""
        if self.sharded is None:
            given = split(batch, self.recipe.accumulate)
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

    def _on_device(
        self,
        state: TrainState,
        parts: Any,
        lr: learning_rate.Rate,
        donation: Donation | None,
    ) -> tuple[step.DeviceState, step.Outputs]:
        """Run the device part in this step's random stream."""
        recipe, number = self.recipe, state.counters.step
        # An average that stays behind, or no loss scale, would be no error and wrong numbers.
        scaled = recipe.precision == "fp16"
        tensors = step.device_state(state)
        loss_scale, ema = tensors["loss_scale"], tensors["ema"]
        if (ema is None) != (recipe.ema is None) or (loss_scale is None) == scaled:
            self.require(state)
        stream = state.rng.stream("step", number)
        try:
            after, outputs = self.device_step(
                tensors, parts, lr, self.is_ema_due(number), donation, stream
            )
        except Exception as error:
            held = parts if self.sharded is None else list(parts.parts.values())
            from functrain.diagnosis.step_errors import explain_step

            explain_step(error, self.fixed, state, number, held)
            raise
        if recipe.nonfinite == "raise" and not nonfinite.is_recoverable(outputs, loss_scale):
            if donation is not None:
                donation.give_back()
            found = self.repeated(tensors, parts, stream, recipe.detect_anomaly)
            nonfinite.raise_for(number, outputs, *found)
        nonfinite.refuse_stuck(number, outputs, after["loss_scale"])
        if recipe.detect_anomaly and nonfinite.is_anomaly(outputs, loss_scale):
            nonfinite.warn_of(number, outputs, self.repeated(tensors, parts, stream, True)[1])
        return after, outputs

    def repeated(
        self, tensors: step.DeviceState, parts: Any, stream: int, locate: bool = False
    ) -> tuple[Tensors, str | None]:
        """Return the gradients of a step, which is repeated, and where its first NaN is from.

        Args:
            tensors: the device part of the state before it.
            parts: of its batch; see :meth:`split`.
            stream: the seed of its random stream.
            locate: whether to look for the operation; see :mod:`functrain.diagnosis.anomaly`.
        """
        if self.sharded is not None:
            return self.sharded.all_gradients(tensors, parts, stream, locate)
        compute = functools.partial(
            step_gradients, by_autograd, self.fixed, tensors, parts, seed=stream
        )
        with scoped(stream, tensors["skipped"].device, draws=self.fixed.draws):
            if not locate:
                found = compute()
                refuse_weight(found.outcome, len(parts))
                return found.grads, None
            from functrain.diagnosis.anomaly import located

            found, place = located(self.fixed.model.module, tensors, parts, compute)
        return found.grads, place

    def anomaly(self, state: TrainState, batch: Batch) -> str:
        """Repeat a step, and say in which operation its first NaN or infinity appeared.

        Args:
            state: before the step; not changed.
            batch: of the step.
        """
        _, parts = self.split(state, batch)
        stream = state.rng.stream("step", state.counters.step)
        return self.repeated(step.device_state(state), parts, stream, locate=True)[1] or ""

    def eval_step(self, state: TrainState, batch: Batch, weights: str = "params") -> Metrics:
        """Return loss and metrics of a batch, in evaluation mode and without gradients.

        A loss that differentiates by itself, as one with forces or a gradient penalty does, is
        evaluated with gradients; ``eval_gradients=True`` saves the attempt to do without.

        Args:
            state: where training stands; not changed.
            batch: any batch that ``loss`` (or ``evaluate``) takes.
            weights: ``"params"``, or ``"ema"`` for the averaged ones.

        Returns:
            ``loss`` and the user's metrics as 0-dim tensors on the state's device.

        Raises:
            ConfigurationError: ``weights`` is unknown, or the program keeps no average.
            ParameterMismatchError: the state is of another model.
        """
        outcome = self.outcome(state, batch, weights)
        refuse_derivatives("eval_step", state, batch)
        found = {"loss": outcome.value, **computed(outcome.metrics, state.device)}
        return NamedDict(found)

    def outcome(self, state: TrainState, batch: Batch, weights: str = "params") -> Outcome:
        """Return the result of ``eval_step``, with the weight that averages over batches need."""
        return evaluation.outcome(self.fixed, self._whole(state, batch), batch, weights)

    def evaluating(
        self, state: TrainState, weights: str = "params", *, gradients: bool = False
    ) -> AbstractContextManager[nn.Module]:
        """Lend the module with a state's weights, in evaluation mode, to a ``with`` block.

        Args:
            state: not changed; buffers that the module writes to are copies.
            weights: ``"params"`` or ``"ema"``.
            gradients: whether torch follows what is computed, for a block that differentiates:
                the trained parameters are then leaves that require gradients.

        Yields:
            A module of its own, in the program's precision and in a random stream of its own.

        Raises:
            ImpurityError: the block wrote to the weights, which are those of the state; names them.

        Example:
            >>> import functrain as ft
            >>> loss = lambda model, batch: model(batch).square().mean()
            >>> program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
            >>> with program.evaluating(program.init()) as model:
            ...     model(torch.ones(3, 2)).shape
            torch.Size([3, 1])
        """
        return evaluation.evaluating(self.fixed, self._whole(state), weights, gradients)

    def module(
        self,
        state: TrainState,
        weights: str = "params",
        *,
        gradients: bool = False,
        training: bool = False,
    ) -> AbstractContextManager[nn.Module]:
        """Lend a module with a state's weights to a ``with`` block, in which other programs step.

        The module may go to a loss as a part of its batch: a teacher, a discriminator, a target
        network. Gradients flow through it to its inputs, as torch is in the mode of the caller.
        Random numbers, as of dropout with ``training=True``, are drawn from torch's generators.

        Args:
            state: not changed; buffers are copies.
            weights: ``"params"`` or ``"ema"``.
            gradients: whether the trained parameters are leaves that require gradients; they are
                copies then.
            training: whether the module is in training mode.

        Yields:
            A module of its own, also if the same program makes a step in the block. The block has
            the program's precision; a step in it has that of the program that makes it.

        Raises:
            ConfigurationError: ``weights`` is unknown, or the program keeps no average.
            ImpurityError: the block wrote to the weights, which are those of the state without
                ``gradients``; names them. ``copy.deepcopy(module)`` may be written to.

        Example:
            >>> import functrain as ft
            >>> def loss(model, batch):
            ...     x, teacher = batch
            ...     return (model(x) - teacher(x)).square().mean()
            >>> program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), ema=0.9)
            >>> state = program.init()
            >>> with program.module(state, weights="ema") as teacher:
            ...     state, metrics = program.train_step(state, (torch.ones(4, 2), teacher))
            >>> metrics["loss"]
            tensor(0.)
        """
        return evaluation.module(self.fixed, self._whole(state), weights, gradients, training)

    def _whole(self, state: TrainState, batch: Batch = None) -> TrainState:
        """Return the state of one program with whole leaves; ``batch`` is for the message."""
        require_state(state, batch)
        refuse_members(state)
        if not self.fixed.model.latest.is_it(state):
            refuse_other_model(self.fixed, state)
        return self.gathered(state)

    def evaluated_by(self, function: LossFunction) -> Program:
        """Return the program with another function for ``eval_step``.

        Args:
            function: ``(model, batch)``, as the loss.
        """
        recipe = attrs.evolve(self.recipe, evaluate=function)
        unseen = Evaluations(Draws(recipe.random))
        fixed = attrs.evolve(self.fixed, recipe=recipe, evaluations=unseen)
        return attrs.evolve(self, fixed=fixed)

    def require(self, state: object, batch: Batch = None) -> None:
        """Refuse a state whose tensors are not those of the program.

        Args:
            state: of this program.
            batch: that was given with it, for the message.

        Raises:
            UnsupportedError: it is no state.
            ParameterMismatchError: names or shapes do not fit; they are listed.
        """
        from functrain.diagnosis.fitting_state import check_state

        check_state(self.fixed, require_state(state, batch))

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
        return attrs.evolve(state, scheduler=scheduler)

    def with_horizon(self, state: TrainState, steps: int) -> TrainState:
        """Fill in the run's length where a schedule left it open; what is set already stays."""
        scheduler = learning_rate.with_horizon(self.schedules, state.scheduler, steps)
        return attrs.evolve(state, scheduler=scheduler)
