"""Read tables of pandas, polars, pyarrow and NumPy as columns.

Tables are recognized by the module of their class, so that none of these packages is imported.
"""

from __future__ import annotations

from typing import Any

from functrain.errors import UnsupportedError

_PACKAGES = ("pandas", "polars", "pyarrow")


def is_table(value: Any) -> bool:
    """Return whether a value is a table or a column of one."""
    return _is_frame(value) or _is_series(value)


def columns_by_name(dataset: Any) -> Any:
    """Convert a table to a dict of arrays, and a column to an array; return others unchanged.

    Example:
        >>> import numpy
        >>> rows = numpy.array([(1, 0.5), (2, 1.5)], dtype=[("id", "i8"), ("x", "f4")])
        >>> columns_by_name(rows)["x"]
        array([0.5, 1.5], dtype=float32)
    """
    if _is_series(dataset):
        return dataset.to_numpy()
    if _is_structured(dataset):
        return {name: dataset[name].copy() for name in dataset.dtype.names}
    if not _is_frame(dataset):
        return dataset
    names, columns = _names(dataset), _columns(dataset)
    if repeated := sorted({str(name) for name in names if names.count(name) > 1}):
        raise UnsupportedError(
            f"two columns of the {type(dataset).__name__} have the name {repeated[0]!r}: rename one"
        )
    return {name: column.to_numpy() for name, column in zip(names, columns, strict=True)}


def as_array(column: Any) -> Any:
    """Convert a column to an array, a table to a two-dimensional one; return others unchanged."""
    return column.to_numpy() if is_table(column) and hasattr(column, "to_numpy") else column


def _is_frame(value: Any) -> bool:
    return _is_of(value, ("DataFrame", "Table", "RecordBatch"))


def _is_series(value: Any) -> bool:
    return _is_of(value, ("Series", "ChunkedArray"))


def _is_of(value: Any, names: tuple[str, ...]) -> bool:
    # Include subclasses, such as those of geopandas.
    return any(
        kind.__module__.partition(".")[0] in _PACKAGES and kind.__name__ in names
        for kind in type(value).__mro__
    )


def _is_structured(value: Any) -> bool:
    numpy = type(value).__module__.partition(".")[0] == "numpy"
    return numpy and getattr(getattr(value, "dtype", None), "names", None) is not None


def _names(frame: Any) -> list[Any]:
    return list(frame.column_names if hasattr(frame, "column_names") else frame.columns)


def _columns(frame: Any) -> list[Any]:
    if hasattr(frame, "iloc"):
        return [frame.iloc[:, index] for index in range(frame.shape[1])]
    return [frame[name] for name in _names(frame)]
