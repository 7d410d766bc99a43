"""Durations: what they accept, how they are written, and how they are read."""

from __future__ import annotations

from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functrain.errors import ConfigurationError, FunctrainError
from functrain.training.durations import Duration, Epochs, Minutes, Samples, Steps, duration

whole = st.integers(min_value=1, max_value=10**15)
parts = st.fractions(min_value=Fraction(1, 10**6), max_value=10**6, max_denominator=10**6)
decimals = st.floats(min_value=1e-9, max_value=1e9, allow_nan=False)
durations: st.SearchStrategy[Duration] = st.one_of(
    st.builds(Steps, whole),
    st.builds(Samples, whole),
    st.builds(Epochs, parts | whole | decimals),
    st.builds(Minutes, parts | whole | decimals),
)


@given(durations)
def test_text_and_repr_say_the_same_duration(value: Duration) -> None:
    assert duration(str(value)) == value
    names = {"Steps": Steps, "Epochs": Epochs, "Samples": Samples, "Minutes": Minutes}
    assert eval(repr(value), {**names, "Fraction": Fraction}) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500 steps", Steps(500)),
        ("1 step", Steps(1)),
        ("0.5 epochs", Epochs(Fraction(1, 2))),
        (".5 epochs", Epochs(Fraction(1, 2))),
        ("0.1 epochs", Epochs(Fraction(1, 10))),
        ("1 epoch", Epochs(1)),
        ("1/3 epoch", Epochs(Fraction(1, 3))),
        ("10_000 samples", Samples(10_000)),
        ("1e6 samples", Samples(1_000_000)),
        ("10 minutes", Minutes(10)),
        ("2 hours", Minutes(120)),
        ("30 seconds", Minutes(Fraction(1, 2))),
        ("20 seconds", Minutes(Fraction(1, 3))),
        ("  3Epochs ", Epochs(3)),
    ],
)
def test_reads(text: str, expected: Duration) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Steps(500), "500 steps"),
        (Steps(1), "1 step"),
        (Steps(2.0), "2 steps"),
        (Epochs(0.5), "0.5 epochs"),
        (Epochs(Fraction(1, 3)), "1/3 epochs"),
        (Minutes(90), "90 minutes"),
        (duration("90 seconds"), "1.5 minutes"),
        (duration("2 seconds"), "2 seconds"),
        (duration("1 second"), "1 second"),
        (duration("0.1 seconds"), "0.1 seconds"),
        (Minutes(Fraction(1, 7)), "1/7 minutes"),
    ],
)
def test_is_written(value: Duration, text: str) -> None:
    assert str(value) == text


def test_a_decimal_number_means_its_digits() -> None:
    assert Epochs(0.1) == Epochs(Fraction(1, 10))
    assert Epochs(0.1).n != Fraction(0.1)


def test_a_duration_is_returned_as_it_is() -> None:
    value = Epochs(0.5)
    assert duration(value) is value


@pytest.mark.parametrize("number", [500, 0.5, True])
def test_a_bare_number_is_refused_for_lack_of_a_unit(number: float) -> None:
    with pytest.raises(ConfigurationError, match=f'did you mean "{number} steps"'):
        duration(number)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5 stpes", 'did you mean "steps"'),
        ("5 parsecs", "unknown unit 'parsecs'"),
        ("steps", "steps"),
        ("5", "not a number and a unit"),
        ("", "not a number and a unit"),
        ("0 steps", "Steps.*above 0, got 0"),
        ("-3 epochs", "Epochs.*above 0, got -3"),
        ("1.5 steps", r"Steps.*whole number above 0, got 1\.5"),
        ("1/0 epochs", "'1/0 epochs' is not a duration"),
        ("1__0 steps", "'1__0 steps' is not a duration"),
        ("nan epochs", "not a number and a unit"),
    ],
)
def test_texts_that_say_no_duration(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        duration(text)


@pytest.mark.parametrize("kind", [Steps, Epochs, Samples, Minutes])
@pytest.mark.parametrize("n", [0, -1, True, float("nan"), float("inf"), "5", None])
def test_numbers_that_are_no_duration(kind: type[Duration], n: object) -> None:
    with pytest.raises(ConfigurationError, match=kind.__name__):
        kind(n)


@pytest.mark.parametrize("kind", [Steps, Samples])
def test_steps_and_samples_are_whole(kind: type[Duration]) -> None:
    with pytest.raises(ConfigurationError, match=r"whole number above 0, got 1\.5"):
        kind(1.5)


def test_errors_are_value_errors_of_functrain() -> None:
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ConfigurationError, FunctrainError)


def test_durations_are_frozen_values() -> None:
    assert hash(Epochs(1)) == hash(Epochs(1.0))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Steps(1).n = 2  # type: ignore[misc]
