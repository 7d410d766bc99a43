"""Run the contenders in turns, so that other load on the machine affects all of them."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from benchmarks.steps import guard, memory
from benchmarks.steps.contenders import CONTENDERS, PLAIN, Contender
from benchmarks.steps.protocol import Turn
from benchmarks.steps.running import ContenderError, Setting, Worker, started
from benchmarks.steps.work import Work

Say = Callable[[str], None]


@attrs.define
class Figures:
    """The measurements of one contender.

    Attributes:
        seconds: of a step, one for each repeat.
        losses: of the first steps.
        first: seconds of the first step, with nothing compiled before (``None``: not measured).
        first_warm: the same in a process that finds what an earlier one has compiled.
        resident: bytes of the process before the steps over which the peak was taken.
        peak: bytes of tensors at the highest point of a step (see ``memory.peak``).
        allocated: bytes that torch allocates in a step, freed or not.
    """

    seconds: list[float] = attrs.field(factory=list)
    losses: list[float] = attrs.field(factory=list)
    first: float | None = None
    first_warm: float | None = None
    resident: float | None = None
    peak: float | None = None
    allocated: float | None = None


@attrs.define
class Results:
    """The results of one work in one setting.

    Attributes:
        work: what was trained.
        threads: of each contender.
        figures: by contender, those that could be measured.
        failures: by contender, why it could not.
    """

    work: Work
    threads: int = 1
    figures: dict[str, Figures] = attrs.field(factory=dict)
    failures: dict[str, str] = attrs.field(factory=dict)

    def ratio(self, contender: str, base: str = PLAIN.name) -> float:
        """Return the ratio of the minima; below 1 is faster than the base."""
        return min(self.figures[contender].seconds) / min(self.figures[base].seconds)

    def ratio_of_medians(self, contender: str, base: str = PLAIN.name) -> float:
        """Return the ratio of the medians, noisier but closer to a busy machine."""
        middle = statistics.median
        return middle(self.figures[contender].seconds) / middle(self.figures[base].seconds)


@attrs.frozen
class Extent:
    """The extent of the measurements.

    Attributes:
        repeats: turns of each contender; by default those of the work.
        share: of these repeats, for short forms.
        cold: compile in an empty cache first, to time that.
        memory: measure memory too, in one more process for each contender.
    """

    repeats: int | None = None
    share: float = 1.0
    cold: bool = True
    memory: bool = True

    def turns(self, work: Work) -> int:
        """Return the number of repeats for a work."""
        return self.repeats or max(round(work.repeats * self.share), 3)


@attrs.frozen(eq=False)
class Session:
    """The workers of one setting, ready for turns."""

    work: Work
    results: Results
    workers: dict[str, Worker]
    caches: dict[str, Path | None] = attrs.field(factory=dict)

    def attempt(self, name: str, turn: Turn) -> float | None:
        """Run a turn of one worker; a failed worker is dropped and the others continue."""
        try:
            return self.workers[name].ask(turn).value
        except ContenderError as error:
            _fail(self.results, name, error)
            del self.workers[name]
            return None

    def race(self, repeats: int, names: Sequence[str] | None = None) -> dict[str, list[float]]:
        """Return the seconds of a step by contender, each round beginning with another one."""
        turn = Turn("seconds", self.work.steps, self.work.lead)
        times: dict[str, list[float]] = {}
        for repeat in range(repeats):
            turns = [name for name in names or self.workers if name in self.workers]
            first = repeat % len(turns)
            for name in (*turns[first:], *turns[:first]):
                seconds = self.attempt(name, turn)
                if seconds is not None:
                    times.setdefault(name, []).append(seconds / self.work.steps)
        return times


def measure(
    work: Work, contenders: Sequence[Contender], extent: Extent, threads: int, say: Say
) -> Results:
    """Measure a work.

    Raises:
        DifferentWorkError: a contender trains something else than the plain loop.
    """
    with session(work, contenders, extent, threads, say) as racing:
        repeats = extent.turns(work)
        say(f"{work.title}: {repeats} turns of {len(racing.workers)} contenders")
        record(racing, racing.race(repeats))
        if extent.memory:
            for name in list(racing.workers):
                say(f"{work.title}: memory of {CONTENDERS[name].title}")
                _memory(racing, CONTENDERS[name], threads)
        return racing.results


def record(racing: Session, times: dict[str, list[float]]) -> None:
    """Store the times of a race, except those of contenders that failed."""
    for name, seconds in times.items():
        racing.results.figures[name].seconds = seconds
    for name in racing.results.failures:
        racing.results.figures.pop(name, None)


@contextlib.contextmanager
def session(
    work: Work, contenders: Sequence[Contender], extent: Extent, threads: int, say: Say
) -> Iterator[Session]:
    """Start the workers, run their first steps, and compare the losses."""
    racing = Session(work, Results(work, threads), {})
    setting = Setting(work.name, threads)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for contender in contenders:
            if not contender.takes(work.name):
                continue
            say(f"{work.title}: first steps of {contender.title}")
            cache = directory / contender.name if extent.cold and contender.compiles else None
            try:
                _begin(racing, contender, setting, cache, stack)
            except ContenderError as error:
                _fail(racing.results, contender.name, error)
        _guard(racing.results)
        yield racing


def _begin(
    racing: Session,
    contender: Contender,
    setting: Setting,
    cache: Path | None,
    stack: contextlib.ExitStack,
) -> None:
    figures = Figures()
    if cache is not None:
        with started(contender, setting, cache) as worker:
            figures.first = worker.ask(Turn("seconds")).value
    worker = stack.enter_context(started(contender, setting, cache))
    answers = [worker.ask(Turn("seconds")) for _ in range(guard.STEPS)]
    figures.losses = [answer.loss for answer in answers]
    if cache is None:
        figures.first = answers[0].value
    else:
        figures.first_warm = answers[0].value
    racing.results.figures[contender.name] = figures
    racing.workers[contender.name], racing.caches[contender.name] = worker, cache


def _guard(results: Results) -> None:
    if PLAIN.name not in results.figures:
        reason = results.failures.get(PLAIN.name, "it was not among the contenders")
        raise guard.DifferentWorkError(f"the plain loop is what all are compared with: {reason}")
    losses = {name: figures.losses for name, figures in results.figures.items()}
    guard.check(losses.pop(PLAIN.name), losses)


def _memory(racing: Session, contender: Contender, threads: int) -> None:
    """Measure allocations in the timed worker, and the peak in one that returns freed memory."""
    name, setting = contender.name, Setting(racing.work.name, threads)
    figures = racing.results.figures[name]
    if contender.in_torch:
        figures.allocated = racing.attempt(name, Turn("allocated"))
    with (
        contextlib.suppress(ContenderError),  # these columns then stay empty
        started(contender, setting, racing.caches[name], memory.RETURNING) as worker,
    ):
        worker.ask(Turn("seconds", guard.STEPS))
        figures.resident = worker.ask(Turn("resident")).value
        figures.peak = worker.ask(Turn("peak", racing.work.steps)).value


def _fail(results: Results, name: str, error: ContenderError) -> None:
    results.failures[name] = str(error)
    results.figures.pop(name, None)
