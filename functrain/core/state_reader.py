"""The methods of a program that read a state: evaluate it, lend its module, repeat its step."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any

import attrs
from torch import nn

from functrain.core import evaluation, first_step, nonfinite, step
from functrain.core.accumulation import step_gradients
from functrain.core.batch import Batch
from functrain.core.global_generators import Draws
from functrain.core.gradients import by_autograd
from functrain.core.loss import LossFunction, LossOutput, Metrics, computed
from functrain.core.recipe import Evaluations, Recipe, StaticParts
from functrain.core.rng import scoped
from functrain.core.state import Donation, Tensors, TrainState, fields_of, is_made_for
from functrain.tree import NamedDict


class StateReader:
    """The part of a program that makes no step."""

    __slots__ = ()

    fixed: StaticParts
    sharded: step.PlacedStep | None

    @property
    def recipe(self) -> Recipe:
        """The values that the program was built from: hyperparameters and policies."""
        return self.fixed.recipe

    @property
    def must_be_finite(self) -> bool:
        """Whether a step with a loss or gradients that are not finite raises."""
        return self.recipe.nonfinite == "raise"

    def gathered(self, state: TrainState) -> TrainState:
        """Return a state with whole leaves, the opposite of ``place``."""
        return state if self.sharded is None else self.sharded.gathered(state)

    def split(self, state: TrainState, batch: Batch) -> tuple[Any, Any]:
        """Return the numbers of a step's batch, and its parts as the device step takes them."""
        raise NotImplementedError

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
        loss_output = self.loss_output(state, batch, weights)
        first_step.refuse_derivatives("eval_step", state, batch)
        found = {"loss": loss_output.value, **computed(loss_output.metrics, state.device)}
        return NamedDict(found)

    def loss_output(self, state: TrainState, batch: Batch, weights: str = "params") -> LossOutput:
        """Return the result of ``eval_step``, with the weight that averages over batches need."""
        return evaluation.loss_output(self.fixed, self._whole(state, batch), batch, weights)

    def trained(self, state: TrainState, weights: str = "params") -> nn.Module:
        """Return a module of the user's class with a state's weights, in evaluation mode.

        It is an ordinary module, and shares no memory with the state: call it, export it, train it
        on, or take its ``state_dict()``. Its weights keep their dtype; it knows nothing of the
        program's precision.

        Args:
            state: not changed.
            weights: ``"params"``, or ``"ema"`` for the averaged ones.

        Raises:
            ConfigurationError: ``weights`` is unknown, or the program keeps no average.
            ParameterMismatchError: the state is of another model.

        Example:
            >>> import functrain as ft, torch
            >>> loss = lambda model, batch: model(batch).square().mean()
            >>> program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
            >>> state, _ = program.train_step(program.init(), torch.ones(4, 2))
            >>> model = program.trained(state)
            >>> torch.equal(model.weight, state.params["weight"]), model.training
            (True, False)
        """
        whole = self._whole(state)
        values = evaluation.weights_of(self.fixed, whole, weights)
        return self.fixed.model.with_weights(values, fields_of(whole)["buffers"])

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
            >>> import functrain as ft, torch
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
            >>> import functrain as ft, torch
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
        first_step.require_state(state, batch)
        first_step.refuse_members(state)
        if not is_made_for(self.fixed.model, state):
            first_step.refuse_other_model(self.fixed, state)
        return self.gathered(state)

    def evaluated_by(self: Any, function: LossFunction) -> Any:
        """Return the program with another function for ``eval_step``.

        Args:
            function: ``(model, batch)``, as the loss.
        """
        recipe = attrs.evolve(self.recipe, evaluate=function)
        unseen = Evaluations(Draws(set(recipe.random)))
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

        check_state(self.fixed, first_step.require_state(state, batch))

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
                from functrain.diagnosis.loss_errors import refuse_weight

                refuse_weight(found.loss_output, len(parts))
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

    def report(
        self,
        number: int,
        state: step.DeviceState,
        parts: Any,
        outputs: step.Outputs,
        stream: int,
        donation: Donation | None,
    ) -> None:
        """Raise for step ``number``, or warn of it, if its loss or gradients are not finite."""
        loss_scale, locate = state["loss_scale"], self.recipe.detect_anomaly
        if nonfinite.is_recoverable(outputs, loss_scale):
            return
        from functrain.diagnosis.nonfinite_steps import raise_for, warn_of

        if self.must_be_finite:
            if donation is not None:
                donation.give_back()
            raise_for(number, outputs, *self.repeated(state, parts, stream, locate))
        warn_of(number, outputs, self.repeated(state, parts, stream, True)[1])
