"""Datasets stored as columns: tensors of equal length, whose rows are the samples."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from functrain import tree
from functrain.data.tables import as_array, columns_by_name, is_table
from functrain.errors import ConfigurationError, UnsupportedError

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
_MANY = 8  # a longer list of tensors may well be a list of samples


@runtime_checkable
class BatchedDataset(Protocol):
    """A dataset that reads several samples at once as a batch, faster than one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    def batch_at(self, indices: Tensor) -> Any:
        """Return the samples ``indices`` (int64 of shape ``[samples]``) as one batch."""
        ...


@attrs.frozen(eq=False)
class Columns:
    """Tensors of equal length in a container.

    Attributes:
        container: the tensor itself, or a dict, list or tuple of tensors.
        tensors: these tensors, each of shape ``[rows, ...]``.
    """

    container: Any
    tensors: list[Tensor]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, row: int) -> Any:
        """Return a copy of one sample; for a list of columns, a tuple."""
        # A transform may write to its sample, and select() alone is a view of the dataset.
        return self.filled([tensor.select(0, row).clone() for tensor in self.tensors], tuple)

    def batch_at(self, indices: Tensor) -> Any:
        """Return several samples as one batch, in a container like that of the columns."""
        return self.filled(self.gathered(indices))

    def gathered(self, indices: Tensor) -> list[Tensor]:
        """Return rows of each tensor."""
        return [rows(tensor, indices) for tensor in self.tensors]

    def filled(self, values: list[Any], sequence: type = list) -> Any:
        """Return values in a container like that of the columns; ``sequence`` replaces a list."""
        if isinstance(self.container, Tensor):
            return values[0]
        if isinstance(self.container, list):
            return sequence(values)
        return tree.rebuild(self.container, values)


def rows(tensor: Tensor, indices: Tensor) -> Tensor:
    """Return rows of a tensor of any dtype; torch indexes these unsigned ones only as signed."""
    signed = tensor.view(_SIGNED.get(tensor.dtype, tensor.dtype))
    return signed.index_select(0, indices.to(tensor.device)).view(tensor.dtype)


def columns_of(dataset: Any) -> Columns | None:
    """Return a dataset as columns, or ``None`` if samples must be read one by one."""
    if type(dataset) is TensorDataset:  # a subclass may have its own __getitem__
        dataset = list(dataset.tensors)
    dataset = columns_by_name(dataset)
    if _is_column(dataset):
        tensor = _tensor("the dataset", dataset)
        return Columns(tensor, [tensor])
    if not (_is_plain(dataset, dict) or _holds_columns(dataset)):
        return None
    columns = {
        f"column {key!r}": _tensor(f"column {key!r} of the dataset", column)
        for key, column in tree.children(dataset)
    }
    _check_lengths(columns)
    return Columns(dataset, list(columns.values()))


def _is_plain(dataset: Any, kind: Any) -> bool:
    """Return whether indexing works as in ``kind``; subclasses may override it."""
    return isinstance(dataset, kind) and type(dataset).__getitem__ is kind.__getitem__


def _is_column(column: Any) -> bool:
    numpy = type(column).__module__.partition(".")[0] == "numpy"
    return isinstance(column, Tensor) or numpy or is_table(column)


def _holds_columns(dataset: Any) -> bool:
    """Return whether the tensors in a tuple or list are columns; a long list may be samples."""
    if not (_is_plain(dataset, list) or _is_plain(dataset, tuple)):
        return False
    if not any(_has_rows(column) for column in dataset[:_MANY]):
        return False
    if isinstance(dataset, tuple) or len(dataset) <= _MANY:
        return True
    if not all(_has_rows(column) for column in dataset):
        return False
    if len({(column.shape, column.dtype) for column in dataset}) == 1:
        raise UnsupportedError(
            f"a list of {len(dataset)} tensors of one shape may be samples or columns: give "
            "torch.stack(list) if each tensor is a sample, tuple(list) if each is a column"
        )
    return len({len(column) for column in dataset}) == 1


def _has_rows(column: Any) -> bool:
    return _is_column(column) and (is_table(column) or column.ndim > 0)


def _tensor(name: str, column: Any) -> Tensor:
    if not _has_rows(column):
        raise UnsupportedError(
            f"{name}: expected a tensor or array with rows, got "
            f"{'a scalar' if _is_column(column) else type(column).__name__}. Give "
            "torch.tensor(values) if it is a list of numbers. A dataset of samples needs __len__ "
            "and __getitem__(index), as torch.utils.data.Dataset has."
        )
    if isinstance(column, Tensor):
        if column.is_nested or column.layout not in (torch.strided, torch.sparse_coo):
            raise UnsupportedError(
                f"{name} is a nested tensor or of layout {column.layout}, of which torch selects "
                "no rows: give a list of samples and collate=, or a sparse matrix as .to_sparse()"
            )
        return column
    array = as_array(column)
    if getattr(array, "mask", False) is not False and array.mask.any():
        raise UnsupportedError(
            f"{name} is a masked array, and a tensor has no mask: fill the masked values"
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))  # of FITS and netCDF files, say
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch cannot share this memory
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise UnsupportedError(
            f"{name} is of {array.dtype}, which torch cannot hold: leave it out or encode it as "
            "numbers (texts by .astype('category').cat.codes, missing values by .fillna, dates by "
            ".astype('int64')), or give samples instead of columns: frame.to_dict('records')"
        ) from error


def _check_lengths(columns: dict[str, Tensor]) -> None:
    if not columns:
        raise UnsupportedError("the dataset is a dict without columns")
    first, *others = columns
    for other in others:
        if len(columns[other]) != len(columns[first]):
            raise ConfigurationError(
                f"columns of a dataset must be equally long, but {first} has "
                f"{len(columns[first])} rows and {other} has {len(columns[other])}"
            )
