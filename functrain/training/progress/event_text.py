"""Texts about events that several listeners show."""

from functrain.training import events


def evaluation_name(event: events.EvalEnd | events.EvalBegin) -> str:
    """Return the prefix of an evaluation's metrics in the log: ``eval``, or ``eval/ema``."""
    return event.name if event.weights == "params" else f"{event.name}/{event.weights}"


def nothing_to_train(event: events.TrainBegin) -> str:
    """Return a line that says that the run had already ended."""
    where = "" if event.resumed is None else f" in {event.resumed.parent}"
    step = event.state.counters.step
    return f"nothing to train: the run{where} already ended at step {step} ({event.ended})"


def continuing(event: events.TrainBegin) -> str:
    """Return a line that says from which checkpoint a run continues, without the whole path."""
    place = "" if event.resumed is None else "/".join(event.resumed.parts[-2:])
    return f"continuing from step {event.state.counters.step} ({place})"
