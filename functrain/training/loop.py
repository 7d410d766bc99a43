"""The loop: ``fit``, which decides and persists, and ``iterate``, for people who write their own.

The order at each step is always the same: train_step, epoch end if the epoch ended, evaluation if
due, best and early-stop decisions, checkpoint if due, stop check. Effects (clock, signals, files)
are here and in what is called from here; the steps themselves are pure.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Checkpoints
from functrain.core.diagnosis import check_state
from functrain.core.program import Metrics, Program
from functrain.core.state import TrainState
from functrain.data import as_source
from functrain.data.replay import OneShot
from functrain.errors import ConfigurationError
from functrain.training.compatibility import count_epochs, warn_of_replay
from functrain.training.course import Course
from functrain.training.decisions import Deciding, watched
from functrain.training.dispatch import several
from functrain.training.durations import Duration, duration
from functrain.training.early_stopping.rule import Rule, as_rule
from functrain.training.evaluation import Evaluations
from functrain.training.events import Listener
from functrain.training.history import Run
from functrain.training.iteration import Progress, advance, epoch_batches
from functrain.training.limits import Limits, Until, position
from functrain.training.resume import Resume
from functrain.training.running import Running
from functrain.training.schedule_end import ScheduleEnd, guarded, scheduled
from functrain.transforms.compile_cache import cached


def fit(
    program: Program,
    data: Any,
    *,
    until: Until,
    state: TrainState | None = None,
    seed: int | None = None,
    eval_data: Any = None,
    eval_every: Duration | str | None = None,
    save_every: Duration | str | None = None,
    directory: str | Path | Checkpoints | None = None,
    resume: Resume = True,
    early_stop: Rule | Sequence[Rule] | None = None,
    restore_best: bool = False,
    listeners: Sequence[Listener] | None = (),
    schedule_end: ScheduleEnd = None,
) -> Run:
    """Train a program until a limit, and again from where it was when called again.

    Args:
        program: what to train.
        data: ``ft.data.Batches``, any torch ``DataLoader``, any iterable of batches that can be
            iterated again, or a loader with ``state_dict``.
        until: a duration, such as ``"10 epochs"`` or ``ft.Steps(1000)``, or several of which the
            first ends the run.
        state: where a new run begins; by default ``program.init(seed)``. A run that is resumed goes
            on from its checkpoint, and warns if a state with steps behind it is not used thereby.
        seed: for ``init``, by default 0. A run that is resumed, and a state that is given, have
            their own: another one is an error.
        eval_data: evaluated with the raw and, if there are any, the averaged weights; one data set
            (its metrics are named ``eval/...``) or several by name; as :class:`Evaluation` with an
            interval, weights, a function or a number of batches of its own.
        eval_every: by default each epoch. The last update is always evaluated.
        save_every: by default each epoch. A new best and the end of the run are always saved.
        directory: the run directory, or a ``Checkpoints`` that says what to keep and what is best.
            Without one nothing is written. A path alone keeps the last 3 and the best by what
            ``early_stop`` monitors, or by the loss.
        resume: go on from the newest checkpoint in ``directory`` that verifies, if there is one;
            ``False`` refuses a directory that has any. ``"best"`` or a step goes back to that one
            and sets later ones aside in a directory of their own. A path goes on from a checkpoint
            of another run, or from the newest that verifies in its directory; its log so far is
            copied, and ``directory`` must be empty.
        early_stop: rule over the evaluations, such as :class:`EarlyStop` or :class:`Overfit`, or
            several, of which the first to stop ends the run. A metric that no evaluation can give,
            here or as ``monitor`` of ``directory``, is an error.
        restore_best: give back the state with the best value of the monitored metric instead of the
            last. What is saved, and how the run goes on when it is called again, stays the same.
        listeners: objects with methods such as ``on_batch_end(event)``; one that returns
            ``ft.Stop()`` ends the run.
        schedule_end: what happens where the run goes on beyond the end of its learning rate
            schedule, as when it is called again with a longer ``until``: ``"stretch"`` goes on
            with the curve of a run of the new length, ``"restart"`` with a new curve over the
            updates that remain, ``"keep"`` with the curve as it was begun and its last rate after
            it. The same call again changes nothing more. By default a last rate above zero is
            kept with a warning, and one of zero is an error.

    Returns:
        The run: last state, history, reason.

    Raises:
        ListenerError: a listener failed. Like any exception from loss or data it leaves a
            checkpoint of the last good state behind.
        ConfigurationError: arguments contradict each other, or nothing says whether less or more of
            the monitored metric is better.
        MissingMetricError: what is monitored is a metric that no evaluation gives.
        CheckpointMismatchError: the directory holds a run of another architecture.
        ParameterMismatchError: ``state`` is of another program.
        UnsupportedError: it is none at all.
        ScheduleEndedError: the rest of the run would have a learning rate of zero.
        RunChangedError: the run in the directory has another seed; or nothing is left to do, and
            it was made with another recipe or other data.

    Example:
        >>> import functrain as ft, torch
        >>> x = torch.linspace(-1, 1, 32).reshape(-1, 1)
        >>> loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
        >>> program = ft.program(torch.nn.Linear(1, 1), loss, ft.optim.Adam(lr=0.1))
        >>> run = ft.fit(program, ft.data.Batches((x, 3 * x), 8), until="20 epochs")
        >>> run.reason, run.state.counters.step, run.history["loss"][-1] < 0.1
        ('max_epochs', 80, True)
    """
    rule = as_rule(early_stop)
    store = _store(directory, rule)
    evaluations = Evaluations.of(eval_data, duration(eval_every or "1 epoch"))
    deciding = Deciding.of(program, rule, store, _restorable(restore_best, store))
    deciding.check(evaluations)
    program = program if store is None else cached(program)
    pure = attrs.evolve(program, donates=False)
    course = Course.of(pure, as_source(data), store, several(listeners))
    running = Running(
        program=pure,
        donating=attrs.evolve(program, donates=True),
        course=course,
        limits=Limits.of(until),
        evaluations=evaluations,
        save_every=duration(save_every or "1 epoch"),
        deciding=deciding,
        restore_best=restore_best,
    )
    with course, contextlib.closing(evaluations):
        running.begin(state, seed, resume, schedule_end)
        return running.end(running.go())


def iterate(
    program: Program,
    state: TrainState,
    data: Any,
    *,
    until: Until | None = None,
    schedule_end: ScheduleEnd = None,
) -> Iterator[tuple[TrainState, Metrics]]:
    """Steps through data from the state's position on, one at a time.

    Args:
        program: what to train.
        state: where to begin, epoch and batch within it included.
        data: whatever ``fit`` takes. The state of a loader that has one (a ``DataLoader`` with its
            own generator, say) is not in ``state``: to go on within an epoch of it use ``fit``.
        until: where to end; by default at the end of the present epoch, so that calling again with
            the last state goes through the next one.
        schedule_end: as for ``fit``, where ``until`` is given.

    Yields:
        (state after the step, its metrics).

    Raises:
        ParameterMismatchError: the state is of another program.
        InvalidPositionError: it stands beyond the end of an epoch, where that may be of other data.
        EmptyDatasetError: the data has no samples.
        UnsupportedError: it is none at all.
        ScheduleEndedError: the steps up to ``until`` would have a learning rate of zero.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> state = program.init()
        >>> for state, metrics in ft.iterate(program, state, [torch.ones(4, 2)] * 3):
        ...     pass
        >>> state.counters.step, state.counters.epoch, state.counters.batch
        (3, 1, 0)
    """
    check_state(program.fixed, state)
    source = as_source(data)
    state, began = count_epochs(state, source), time.monotonic()
    limits = None if until is None else Limits.of(until)
    if limits is not None:
        steps = limits.steps(source.length, program.recipe.accumulate)
        state = scheduled(program, state, steps, schedule_end)
        program = guarded(program, steps, schedule_end)

    def ended() -> bool:
        if limits is None:
            return state.counters.epoch != first
        seconds = time.monotonic() - began if limits.timed else 0.0
        return limits.reached(position(state, source.length, seconds)) is not None

    with contextlib.closing(source):
        if isinstance(source, OneShot):  # what it drops cannot be read again
            warn_of_replay(state, source)
        first = state.counters.epoch
        while not ended():
            epoch, step = state.counters.epoch, state.counters.step
            progress = Progress.begin(state.counters)
            for batch, ends_epoch in epoch_batches(source, state, program.recipe.accumulate, None):
                state, metrics = advance(program, state, batch, ends_epoch)
                progress.after(state.counters, ends_epoch)
                yield state, metrics
                if ended():
                    return
            if state.counters.epoch == epoch:
                # The data ended before its own length said so, or had no more of this epoch.
                progress.end()
                state = attrs.evolve(state, counters=state.counters.next_epoch())
                first += state.counters.step == step


def _store(directory: str | Path | Checkpoints | None, rule: Rule | None) -> Checkpoints | None:
    if directory is None or isinstance(directory, Checkpoints):
        return directory
    # A run decides the same whether it is written or not.
    return Checkpoints(directory, keep_last=3, **watched(rule))


def _restorable(restore_best: bool, store: Checkpoints | None) -> bool:
    if restore_best and store is not None and not store.keep_best:
        raise ConfigurationError("restore_best needs Checkpoints with keep_best of at least 1")
    return restore_best
