"""Draw durations and interruptions of runs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from functrain.testing.interruptions import Cut, How
from functrain.training.durations import Epochs, Minutes, Samples, Steps


def durations(timed: bool = False, most: int = 20) -> st.SearchStrategy[Any]:
    """Draw steps, epochs (including fractions), samples, and optionally minutes.

    Args:
        timed: whether minutes may be drawn; how long they last depends on the machine.
        most: of a unit.

    Example:
        >>> from hypothesis import find
        >>> str(find(durations(), lambda duration: True))
        '1 step'
    """
    whole = st.integers(1, most)
    parts = st.sampled_from(["1/4", "1/3", "1/2", "3/2"]).map(Fraction)
    found = [st.builds(Steps, whole), st.builds(Epochs, whole | parts), st.builds(Samples, whole)]
    return st.one_of([*found, *([st.builds(Minutes, whole)] if timed else [])])


@st.composite
def cuts(
    draw: st.DrawFn,
    steps: int,
    ways: tuple[How, ...] = ("stop", "error"),
    workers: tuple[int | None, ...] = (None,),
    most: int = 3,
) -> list[Cut]:
    """Draw interruptions for ``check_resumes``: where, how, and the number of workers afterwards.

    Args:
        draw: given by Hypothesis.
        steps: updates in the run; cuts are before its end.
        ways: to choose from; ``"kill"`` needs processes of their own.
        workers: to choose from; ``None`` leaves them as they are.
        most: cuts.

    Example:
        >>> from hypothesis import find
        >>> find(cuts(steps=9), lambda found: len(found) > 1)
        [Cut(step=1, how='stop', workers=None), Cut(step=2, how='stop', workers=None)]
    """
    places = st.lists(st.integers(1, steps - 1), min_size=1, max_size=most, unique=True)
    kinds, counts = st.sampled_from(list(ways)), st.sampled_from(list(workers))
    return [Cut(step, draw(kinds), draw(counts)) for step in sorted(draw(places))]
