"""Calls that do not fit a signature are explained, and others pass unchanged."""

from __future__ import annotations

import inspect
import traceback
from typing import Any

import attrs
import pytest

from functrain.errors import CallError
from functrain.errors.calls import explained


@explained
def train(data: Any, /, model: Any, *, clip_norm: float = 0.0, until: str) -> str:
    """Train.

    Args:
        data: the data; any iterable.
        until: a duration, such as ``"10 epochs"``. The first
            to be reached counts.
    """
    if clip_norm < 0:
        return train(data, model, clip=clip_norm, until=until)  # type: ignore[call-arg]
    return f"{data} {until}" if clip_norm < 9 else len(3)  # type: ignore[arg-type,return-value]


@explained
@attrs.frozen
class Rule:
    """A rule.

    Args:
        lr: learning rate.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)


def message(call: Any) -> str:
    with pytest.raises(CallError) as raised:
        call()
    assert isinstance(raised.value, TypeError)
    return str(raised.value)


WRONG: list[tuple[Any, str]] = [
    (lambda: train(1, 2, epochs=3), "train() takes no argument 'epochs': write until=\"3 epochs\""),
    (lambda: train(1, 2, clipnorm=0.5, until=""), "write clip_norm=0.5"),
    (lambda: train(1, 2, untill="2 steps"), "(did you mean 'until'?); it takes model, clip_norm"),
    (lambda: train(1, 2, learning_rate=3, until=""), "the optimizer takes it"),
    (lambda: train(1, 2, whatever=3, until=""), "'whatever'; it takes model, clip_norm, until"),
    (lambda: train(1, 2), "needs the argument 'until' (a duration, such as \"10 epochs\")"),
    (lambda: train(1, until=""), "needs the argument 'model'"),
    (lambda: train(1, 2, 3, until=""), "takes (data, model) by position, and the keywords"),
    (lambda: train(1, 2, model=2, until=""), "takes 'model' once, and got it by position (2)"),
    (lambda: Rule(learning_rate=0.5), "Rule() takes no argument 'learning_rate': write lr=0.5"),
    (lambda: Rule(lr=0.5, beta1=0.5), "write betas=(0.9, 0.999)"),
    (lambda: Rule(iter("ab"), lr=1.0), "the program gives them to its optimizer"),
    (lambda: Rule(), "needs the argument 'lr' (learning rate)"),
    (lambda: attrs.evolve(Rule(1.0), alpha=2.0), "write lr=2.0"),
]


@pytest.mark.parametrize(("call", "text"), WRONG)
def test_what_is_wrong_and_what_to_write(call: Any, text: str) -> None:
    assert text in message(call)


def test_a_keyword_that_stands_for_a_missing_one_is_one_mistake() -> None:
    assert "needs" not in message(lambda: train(1, 2, epochs=3))  # type: ignore[call-arg]


def test_a_correct_call_and_an_error_from_within_pass_unchanged() -> None:
    assert train("x", 2, until="1 step") == "x 1 step"
    assert Rule(0.5) == Rule(lr=0.5)
    with pytest.raises(TypeError, match="has no len") as raised:
        train(1, 2, until="", clip_norm=9)
    assert not isinstance(raised.value, CallError)


def test_the_line_of_the_call_is_in_the_traceback() -> None:
    with pytest.raises(CallError, match="'clip'") as raised:
        train(1, 2, until="", clip_norm=-1)
    assert any("clip=clip_norm" in (f.line or "") for f in traceback.extract_tb(raised.tb))


def test_signature_and_documentation_stay() -> None:
    assert list(inspect.signature(train).parameters) == ["data", "model", "clip_norm", "until"]
    assert list(inspect.signature(Rule).parameters) == ["lr", "betas"]
    assert train.__doc__.startswith("Train.")  # type: ignore[union-attr]
