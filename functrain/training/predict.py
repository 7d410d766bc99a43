"""The outputs of a model over a data set, in order and on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from functrain.core.batch import Batch, count, size
from functrain.core.batch_lending import copied
from functrain.core.first_step import require_state
from functrain.core.program import Program
from functrain.core.protocol import require_plain
from functrain.core.state import TrainState
from functrain.data import as_source
from functrain.data.in_order import in_order
from functrain.data.own_generators import keep_generators
from functrain.data.reading_errors import naming_dead_workers
from functrain.errors import ConfigurationError, EmptyDatasetError
from functrain.errors.calls import explained
from functrain.training.evaluation import Weights
from functrain.tree import containers

_CONSTANT = (str, bool, type(None))  # a name or an option; numbers would be those of one batch
_PLAIN = (*_CONSTANT, int, float, bytes)
_BY_BATCH = "predict(..., join=False) returns a list with the output of each batch"


@explained
def predict(
    program: Program,
    state: TrainState,
    data: object,
    function: Callable[[nn.Module, Batch], Any] | None = None,
    *,
    weights: Weights = "params",
    join: bool = True,
) -> Any:
    """Return the outputs of the model for all samples of a data set, in order, on the CPU.

    The model is in evaluation mode and in the program's precision; nothing is followed for
    gradients, unless the program has ``eval_gradients``.

    Args:
        program: its model is called.
        state: the state with the weights; neither it nor any random generator changes.
        data: anything ``fit`` takes; its first epoch is used. ``Batches`` are read in the order of
            the dataset, whether they shuffle or not.
        function: ``(model, batch) -> output``. By default the model is called with a batch that is
            a tensor, and with the first item of one that is a tuple or list, as ``(inputs,
            targets)``.
        weights: ``"params"`` or ``"ema"``.
        join: join the outputs of the batches along the first axis; otherwise return a list.

    Returns:
        The model's output: a tensor [samples, ...], or a container of such tensors.

    Raises:
        ConfigurationError: the batch does not show the model's input, or outputs cannot be
            joined: they are no tensors, or not one row a sample; or a loader shuffles or drops
            samples.
        EmptyDatasetError: the data has no samples.

    Example:
        >>> import functrain as ft
        >>> loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
        >>> program = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> batches = [(torch.ones(3, 2), torch.ones(3, 1)), (torch.ones(1, 2), torch.ones(1, 1))]
        >>> predict(program, program.init(), batches).shape
        torch.Size([4, 1])
    """
    require_plain(program, "predict")
    require_state(state, data)
    state, gradients = program.gathered(state), program.recipe.eval_gradients
    source = as_source(in_order(data))
    outputs = []
    # A loader with its own generator draws its order from it: each call the same one.
    with naming_dead_workers(), keep_generators(getattr(source, "data", None)):
        for batch in source.epoch(0, 0, 0, None):
            if count(batch):
                with program.evaluating(state, weights, gradients=gradients) as model:
                    found = (function or called)(model, copied(batch, state.device))
                found = _on_host(found)
                if join:
                    _check_rows(found, size(batch))
                outputs.append(found)
    if not outputs:
        raise EmptyDatasetError("predict: the data has no samples: check its dataset or sampler")
    return _joined(outputs, "output") if join else outputs


def called(model: nn.Module, batch: Batch) -> Any:
    """Call a model with the inputs of a batch."""
    if isinstance(batch, Tensor):
        return model(batch)
    if isinstance(batch, (tuple, list)) and batch:
        return model(batch[0])
    raise ConfigurationError(
        "expected batches that are a tensor or begin with the model's input, got a "
        f"{type(batch).__name__}. Say how to call the model: "
        'function=lambda model, batch: model(batch["x"])'
    )


def _on_host(output: Any) -> Any:
    if isinstance(output, Tensor):
        # A copy: it may be a part of the state, or memory that the next batch overwrites.
        return output.detach().to("cpu", copy=True)
    if not containers.is_container(output):
        return output
    parts = [_on_host(child) for _, child in containers.children(output)]
    return containers.rebuild(output, parts)


def _check_rows(output: Any, samples: int | None) -> None:
    """Raise where a tensor of an output has not one row a sample."""
    for column in _columns(output):
        rows = len(column) if isinstance(column, list) or column.dim() else None
        if rows is None or (samples is not None and rows != samples):
            shape = f"length {rows}" if isinstance(column, list) else f"shape {[*column.shape]}"
            raise ConfigurationError(
                f"predict: expected one row for each of the {samples} samples of a batch, got a "
                f"{type(column).__name__} of {shape}; {_BY_BATCH}"
            )


def _columns(output: Any) -> Iterator[Any]:
    """Yield the tensors and the lists of plain values in an output."""
    if isinstance(output, Tensor) or _is_plain_list(output):
        yield output
    elif containers.is_container(output):
        for _, child in containers.children(output):
            yield from _columns(child)


def _is_plain_list(output: Any) -> bool:
    return type(output) is list and all(isinstance(one, _PLAIN) for one in output)


def _joined(outputs: list[Any], path: str) -> Any:
    """Join outputs of one structure along the first axis."""
    first = outputs[0]
    kinds = {type(one).__name__: None for one in outputs}
    if len(kinds) > 1:
        raise _unlike(path, "of one type", " and ".join(kinds))
    if isinstance(first, Tensor):
        if len({(one.shape[1:], one.dtype) for one in outputs}) > 1:
            found = dict.fromkeys(f"{list(one.shape)} {one.dtype}" for one in outputs)
            raise _unlike(path, "with rows alike in all batches", ", ".join(found))
        return torch.cat(outputs)
    if all(map(_is_plain_list, outputs)):
        return [one for output in outputs for one in output]
    if not containers.is_container(first):
        if isinstance(first, _CONSTANT) and all(one == first for one in outputs):
            return first
        raise _unlike(path, "with tensors", f"values of type {type(first).__name__}")
    children = [dict(containers.children(one)) for one in outputs]
    for one in children:
        if one.keys() != children[0].keys():
            got = f"{list(children[0])[:8]} and {list(one)[:8]}"
            raise _unlike(path, "with the same parts in all batches", got)
    parts = [_joined([one[key] for one in children], f"{path}.{key}") for key in children[0]]
    return containers.rebuild(first, parts)


def _unlike(path: str, expected: str, got: str) -> ConfigurationError:
    return ConfigurationError(f"predict: expected {path} {expected}, got {got}; {_BY_BATCH}")
