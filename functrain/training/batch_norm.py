"""``functrain.update_bn``: statistics of batch norms for other weights than those of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import nn
from torch.optim import swa_utils

from functrain.core.batch import Batch, count
from functrain.core.batch_lending import copied
from functrain.core.evaluation import evaluation_stream
from functrain.core.first_step import require_state
from functrain.core.module_tensors import plain_paths
from functrain.core.program import Program
from functrain.core.protocol import require_plain
from functrain.core.rng import scoped
from functrain.core.state import TrainState
from functrain.data import as_source
from functrain.data.in_order import in_order
from functrain.data.own_generators import keep_generators
from functrain.data.reading_errors import naming_dead_workers
from functrain.errors import ConfigurationError, EmptyDatasetError
from functrain.errors.calls import explained
from functrain.training.evaluation import Weights
from functrain.training.predict import called


@explained
def update_bn(
    program: Program,
    state: TrainState,
    data: object,
    function: Callable[[nn.Module, Batch], Any] | None = None,
    *,
    weights: Weights = "ema",
) -> TrainState:
    """Return a state whose batch norms have the statistics of the averaged weights.

    The running statistics of a run are those of its raw weights. An average of weights, above all
    an equal one (:class:`functrain.SWA`), needs its own, as ``torch.optim.swa_utils.update_bn``
    computes them: the mean over all batches, in training mode. Evaluate, predict with and export
    the state that is returned, with the same ``weights``; train on from the old one.

    Args:
        program: its model is called.
        state: not changed.
        data: anything ``fit`` takes; its first epoch is read in order.
        function: ``(model, batch) -> output``, as in :func:`functrain.predict`.
        weights: ``"ema"`` or ``"params"``.

    Returns:
        The state with other buffers.

    Raises:
        ConfigurationError: the model has no batch norm with running statistics, the program keeps
            no average, or the batch does not show the model's input.
        EmptyDatasetError: the data has no samples.

    Example:
        >>> import functrain as ft
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(net, loss, ft.optim.SGD(lr=0.1), ema=ft.SWA())
        >>> data = ft.data.Batches(torch.randn(64, 2), 16)
        >>> state = ft.fit(program, data, until="2 epochs").state
        >>> averaged = ft.update_bn(program, state, data)
        >>> found = ft.evaluate(program, averaged, data, weights="ema")
        >>> torch.equal(averaged.params["0.weight"], state.params["0.weight"])
        True
    """
    require_plain(program, "update_bn")
    require_state(state, data)
    if not program.fixed.model.statistics:
        raise ConfigurationError(
            "update_bn: the model has no batch norm with running statistics, so nothing depends on "
            "the weights that a run had"
        )
    whole = program.gathered(state)
    source = as_source(in_order(data))

    def batches() -> Iterator[list[Batch]]:
        found = False
        for batch in source.epoch(0, 0, 0, None):
            if count(batch):
                found = True
                yield [copied(batch, whole.device)]
        if not found:
            raise EmptyDatasetError("update_bn: the data has no samples: check its dataset")

    with (
        naming_dead_workers(),
        keep_generators(getattr(source, "data", None)),
        torch.no_grad(),
        scoped(evaluation_stream(state), whole.device),
        program.module(whole, weights, training=True) as model,
    ):
        swa_utils.update_bn(batches(), _Calling(model, function or called))
        updated = dict(model.named_buffers())
    plain = plain_paths(program.fixed.model.module, list(updated))
    updated = {plain[path]: buffer for path, buffer in updated.items()}
    buffers = {path: updated.get(path, own) for path, own in whole.buffers.items()}
    return program.place(attrs.evolve(whole, buffers=buffers))


class _Calling(nn.Module):
    """A model that is called with a batch by a function of the user."""

    def __init__(self, model: nn.Module, function: Callable[[nn.Module, Batch], Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, batch: Batch) -> Any:
        """Call the model."""
        return self.function(self.model, batch)
