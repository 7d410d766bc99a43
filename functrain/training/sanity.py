"""An evaluation before training, so that an error in it shows at once."""

from __future__ import annotations

from functrain.core.state import is_averaged
from functrain.data import Source
from functrain.data.iterables import IteratorSource
from functrain.data.stateful import StatefulSource
from functrain.errors import ConfigurationError
from functrain.training.evaluation import Interrupted
from functrain.training.finish import ended
from functrain.training.monitored import check_given
from functrain.training.session import Session


def check_evaluation(session: Session, batches: int) -> None:
    """Evaluate a few batches of each set, and keep none of the results.

    Listeners hear nothing of it, and neither the state nor the log changes. An error leaves no
    checkpoint behind: a run that had not begun begins from scratch.
    """
    plan = session.plan
    if not batches:
        return
    _check_readable({name: each.data for name, each in plan.evaluations.sets.items()})
    if ended(session) is not None:
        return
    few, program = plan.evaluations.limited(batches), plan.program
    whole = program.gathered(session.train)
    try:
        found = few.evaluated(program, whole, list(few.sets), _silent, session.is_interrupted)
        seen, modes = session.ranks.broadcast(found)
        if session.ranks.leads:
            prefixes = few.prefixes(is_averaged(whole))
            monitored = session.decisions.monitored()
            check_given(monitored, seen, few.sets, prefixes, session.recorder.rows)
        session.decisions.directed(seen, modes)
    except Interrupted:
        return  # the loop hears of the signal after the first step
    except Exception as error:
        error.add_note(f"in the evaluation before training, sanity_batches={batches}")
        raise


def _silent(event: object) -> None:
    """Send an event to nobody."""


def _check_readable(sets: dict[str, Source]) -> None:
    if not sets:
        raise ConfigurationError(
            "sanity_batches has no effect without eval_data: give fit eval_data=, or leave it out"
        )
    for name, source in sets.items():
        inner = source
        while isinstance(held := getattr(inner, "data", None), Source):
            inner = held
        if isinstance(inner, IteratorSource | StatefulSource):
            kind = type(inner.data).__name__
            raise ConfigurationError(
                f"sanity_batches: the evaluation data {name!r} is a {kind}, which can be read only "
                "once or goes on where it was left, so that a few batches read before training "
                "would be missing later. Give functrain.data.Batches, a DataLoader or a list, or "
                "leave sanity_batches out"
            )
