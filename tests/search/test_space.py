"""Search spaces in the forms that users write, and their mistakes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from functrain.errors import SearchError
from functrain.search.space import Choices, Range, read_space, suggest

optuna = pytest.importorskip("optuna")


def drawn(space: Any, count: int = 30) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [suggest(read_space(space), study.ask()) for _ in range(count)]


@pytest.mark.row(47)
def test_sections_and_dotted_names_are_equivalent() -> None:
    lr = {"type": "float", "min": 1e-4, "max": 1e-1, "log": True}
    nested = {"optimizer": {"lr": lr}, "model": {"head": {"width": [8, 16]}}}
    dotted = {"optimizer.lr": lr, "model.head.width": [8, 16]}
    mixed = {"optimizer": {"lr": lr}, "model": {"head.width": [8, 16]}}
    assert read_space(nested) == read_space(dotted) == read_space(mixed)


@pytest.mark.row(47)
def test_values_are_drawn_from_their_ranges() -> None:
    space = {
        "lr": {"type": "float", "min": 1e-4, "max": 1e-1, "log": True},
        "width": {"type": "int", "min": 8, "max": 30, "step": 8},
        "p": {"type": "float", "min": 0, "max": 0.5, "step": 0.1},
        "act": {"type": "categorical", "choices": ["relu", "gelu"]},
        "clip": [None, 1, 2.5],
        "kernel": [[3, 3], {"size": 5}],
    }
    found = drawn(space)
    assert all(1e-4 <= one["lr"] <= 1e-1 for one in found)
    assert sum(one["lr"] < 10**-2.5 for one in found) > 8  # uniform in the logarithm
    assert {one["width"] for one in found} == {8, 16, 24}
    assert {type(one["width"]) for one in found} == {int}
    assert {round(one["p"], 9) for one in found} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert {one["act"] for one in found} == {"relu", "gelu"}
    assert {one["clip"] for one in found} == {None, 1, 2.5}
    assert [3, 3] in [one["kernel"] for one in found]
    assert {"size": 5} in [one["kernel"] for one in found]


def test_parameters_may_have_the_names_of_keys() -> None:
    space = {"loss": {"type": ["a", "b"], "min": {"type": "int", "min": 1, "max": 2}}}
    assert list(read_space(space)) == ["loss.type", "loss.min"]


def test_one_value_is_a_space() -> None:
    space = {"a": {"type": "int", "min": 3, "max": 3}, "b": [None]}
    assert drawn(space, 2) == [{"a": 3, "b": None}] * 2


def test_choices_alone_are_categorical() -> None:
    assert read_space({"a": {"choices": [1, 2]}}) == {"a": Choices([1, 2])}
    assert read_space({"a": Range("int", 1, 2)}) == {"a": Range("int", 1, 2)}


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"type": "flaot", "min": 1, "max": 2}, "type: expected one of float, int, categorical"),
        ({"min": 1, "max": 2}, "type: expected one of .* got None"),
        ({"type": "float", "mim": 1, "max": 2}, "unknown key 'mim' .did you mean 'min'"),
        ({"type": "float", "min": 1}, "max: missing"),
        ({"type": "float", "min": 2, "max": 1}, "min is 2.0, which is above max"),
        ({"type": "float", "min": "a", "max": 1}, "min: expected float, got 'a'"),
        ({"type": "float", "min": True, "max": 1}, "min: expected float, got True"),
        ({"type": "float", "min": 0, "max": math.inf}, "max: expected float, got inf"),
        ({"type": "int", "min": 1, "max": 2.5}, "max: expected int, got 2.5"),
        ({"type": "float", "min": 0, "max": 1, "log": True}, "log: needs min above 0"),
        ({"type": "int", "min": 1, "max": 9, "log": True, "step": 2}, "log: needs .* no step"),
        ({"type": "int", "min": 1, "max": 9, "step": 0}, "step: expected a number above 0"),
        ({"type": "int", "min": 1, "max": 9, "log": "yes"}, "log: expected true or false"),
        ({"type": "categorical"}, "choices: missing"),
        ({"type": "categorical", "choices": 3}, "choices: expected a list"),
        ([], "choices: the list is empty"),
        ([1, 2, 1], "choices: some are equal: 1"),
        ([1, True], "choices: some are equal: 1, True"),
        (0.1, "expected a mapping such as"),
    ],
)
def test_mistakes_are_errors_with_their_key(parameter: Any, message: str) -> None:
    with pytest.raises(SearchError, match=f"space: model.a: {message}"):
        read_space({"model": {"a": parameter}})


def test_a_space_has_parameters_without_duplicates() -> None:
    with pytest.raises(SearchError, match="no parameters"):
        read_space({"model": {}})
    with pytest.raises(SearchError, match=r"a\.b: given twice"):
        read_space({"a.b": [1], "a": {"b": [2]}})
