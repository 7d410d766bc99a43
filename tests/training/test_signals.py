"""A first signal is noted; whether the next one is another request depends on who sends it."""

from __future__ import annotations

import signal

import attrs
import pytest

from functrain.training import signals
from functrain.training.signals import Interrupts


@attrs.define
class Clock:
    """Stands for ``time``; sleeping takes no time."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(signals, "time", made)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return made


def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")


def test_a_second_signal_does_what_it_did_before(clock: Clock) -> None:
    with Interrupts() as interrupts:
        assert interrupts.received is None
        signal.raise_signal(signal.SIGINT)
        assert interrupts.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert clock.now == 0.0


def test_signals_within_a_second_are_one_under_a_launcher(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(monkeypatch)
    with Interrupts() as interrupts:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
            clock.now += 0.3
        assert interrupts.received == "SIGINT"
        clock.now += 0.2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_copy_that_comes_after_the_last_step_is_awaited(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(monkeypatch)
    with Interrupts():
        signal.raise_signal(signal.SIGTERM)
        clock.now += 0.25
    assert clock.now == 1.0
    with Interrupts():
        pass
    assert clock.now == 1.0
