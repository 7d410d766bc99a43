"""Tables as datasets: a dict of columns, rows by position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors

pandas = pytest.importorskip("pandas")


def frame() -> Any:
    """A table whose index is not the position of its rows."""
    columns = {"a": np.arange(5.0, dtype="f4"), "b": np.arange(5) % 2}
    return pandas.DataFrame(columns, index=[40, 30, 20, 10, 0])


def arrow() -> Any:
    return pytest.importorskip("pyarrow").Table.from_pandas(frame(), preserve_index=False)


def polars() -> Any:
    return pytest.importorskip("polars").DataFrame(frame().to_dict("list"))


TABLES = {
    "pandas": frame,
    "pyarrow": arrow,
    "polars": polars,
    "structured array": lambda: frame().to_records(index=False),
    "packed structured array": lambda: np.array(
        list(frame().itertuples(index=False)), [("a", "f4"), ("b", "i1")]
    ),
}


def in_order(dataset: Any, size: int = 2, **options: Any) -> list[Any]:
    return list(ft.data.Batches(dataset, size, shuffle=False, **options))


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
class TestTables:
    def test_a_batch_is_a_dict_of_columns(self, make: Any) -> None:
        batches = in_order(make())
        assert [list(batch) for batch in batches] == [["a", "b"]] * 3
        assert torch.cat([batch["a"] for batch in batches]).tolist() == [0, 1, 2, 3, 4]
        assert torch.cat([batch["b"] for batch in batches]).tolist() == [0, 1, 0, 1, 0]

    def test_a_transform_is_given_rows(self, make: Any) -> None:
        def doubled(row: Any) -> Tensor:
            return row["a"] * 2

        assert in_order(make(), 5, transform=doubled)[0].tolist() == [0, 2, 4, 6, 8]

    def test_a_run(self, make: Any) -> None:
        def loss(model: nn.Module, batch: Any) -> Tensor:
            return (model(batch["a"][:, None].float())[:, 0] - batch["b"]).square().mean()

        made = ft.program(lambda: nn.Linear(1, 1), loss, ft.optim.SGD(lr=0.01))
        run = ft.fit(made, ft.data.Batches(make(), 2), until="2 epochs", eval_data=in_order(make()))
        assert run.state.counters.samples == 10

    def test_a_table_is_not_batches(self, make: Any) -> None:
        with pytest.raises(errors.UnsupportedError, match=r"Batches\(data, batch_size\)"):
            ft.data.as_source(make())


class TestParts:
    def test_features_and_target(self) -> None:
        table = frame()
        for dataset in ((table[["a"]], table["b"]), {"x": table[["a"]], "y": table["b"]}):
            *_, last = in_order(dataset)
            x, y = last if isinstance(last, tuple) else last.values()
            assert (x.tolist(), y.tolist()) == ([[4.0]], [0])

    def test_a_series_is_read_by_position(self) -> None:
        assert torch.cat(in_order(frame()["a"])).tolist() == [0, 1, 2, 3, 4]
        assert torch.cat(in_order(frame()["a"].iloc[2:])).tolist() == [2, 3, 4]

    def test_an_array_is_not_batches(self) -> None:
        with pytest.raises(errors.UnsupportedError, match="Batches"):
            ft.data.as_source(np.zeros((4, 2)))

    def test_the_table_is_not_written_to(self) -> None:
        table = frame()
        batch = in_order(table, 5)[0]
        batch["a"].zero_()
        assert table["a"].tolist() == [0, 1, 2, 3, 4]


REFUSED = {
    "text": (pandas.DataFrame({"a": [1], "t": ["x"]}), ("'t'", "to_dict('records')")),
    "dates": (pandas.DataFrame({"t": pandas.to_datetime(["2020-01-01"])}), ("'t'", "datetime")),
    "twice": (pandas.concat([frame(), frame()], axis=1), ("'a'", "rename")),
    "list": ({"x": [1, 2, 3]}, ("'x'", "torch.tensor(values)")),
    "mask": (np.ma.array([1, 2], mask=[True, False]), ("masked", "fill")),
    "lengths": ((frame(), frame()["a"].iloc[1:]), ("5 rows", "4")),
    "objects": ({"x": np.array([1, None], dtype=object)}, ("'x'", "object")),
}


@pytest.mark.parametrize(("dataset", "told"), REFUSED.values(), ids=REFUSED)
def test_columns_that_no_tensor_can_hold_are_refused_by_name(
    dataset: Any, told: tuple[str, ...]
) -> None:
    with pytest.raises((errors.UnsupportedError, errors.ConfigurationError)) as refused:
        ft.data.Batches(dataset, 2)
    for part in told:
        assert part in str(refused.value)
    assert "of the dataset of the dataset" not in str(refused.value)


def test_rows_as_samples_keep_values_that_are_not_numbers() -> None:
    table = pandas.DataFrame({"a": [1.0, 2.0], "t": ["x", "y"]})
    assert in_order(table.to_dict("records"))[0]["t"] == ["x", "y"]
