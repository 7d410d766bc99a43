"""``fit``: train until a limit, and resume where an earlier call ended.

``fit`` parses its arguments into a ``Plan`` and the ``Decisions``, opens a ``Session`` for all that
changes, and runs the loop of ``loop.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from functrain.checkpoint import Checkpoints
from functrain.core.protocol import AnyProgram, AnyState, require_program
from functrain.data.reading_errors import naming_dead_workers
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.schedules.schedule_end import ScheduleEnd
from functrain.training.agreement import Ranks, world_of
from functrain.training.checkpointer import Checkpointer
from functrain.training.choosing import Resume
from functrain.training.decisions import Decisions, monitor_and_mode
from functrain.training.dispatch import Listeners
from functrain.training.durations import Duration
from functrain.training.early_stopping.rule import Rule, as_rule
from functrain.training.events import Listener
from functrain.training.finish import finished
from functrain.training.history import Run
from functrain.training.iteration import source_of
from functrain.training.limits import Until
from functrain.training.loop import run
from functrain.training.phases import counting_epochs
from functrain.training.plan import BatchLimits, Plan
from functrain.training.progress.bar import default_bar
from functrain.training.sanity import check_evaluation
from functrain.training.session import Session
from functrain.training.signals import Interrupts
from functrain.training.start import Given, start
from functrain.transforms.compile_cache import cached


@explained
def fit(
    program: AnyProgram,
    data: Any,
    *,
    until: Until,
    state: AnyState | None = None,
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
    sanity_batches: int = 0,
    limit_train_batches: int | None = None,
    limit_eval_batches: int | None = None,
    progress: bool | None = None,
) -> Run:
    """Train a program until a limit; called again with the same directory, resume.

    Args:
        program: the program to train, or a population of :func:`functrain.population`, whose
            history, best and early stop are by member.
        data: ``ft.data.Batches``, any torch ``DataLoader``, any iterable of batches that can be
            iterated more than once, or a loader with ``state_dict``.
        until: a duration, such as ``"10 epochs"`` or ``ft.Steps(1000)``, or several; the first to
            be reached ends the run.
        state: where a new run begins, by default ``program.init(seed)``. A resumed run continues
            from its checkpoint, and warns if it does not use a state that has made steps.
        seed: of the weights that a factory makes, of what steps draw, and of the order of
            ``Batches`` without a seed; by default 0. A resumed run and a given state have their own
            seed; another one is an error. Where a seed changes nothing, a warning says so.
        eval_data: one data set (its metrics are named ``eval/...``) or several by name, evaluated
            with the raw and, if there are any, the averaged weights. :class:`Evaluation` gives a
            set its own interval, weights, function or number of batches.
        eval_every: interval of evaluations, by default each epoch. The last update is always
            evaluated.
        save_every: interval of checkpoints, by default each epoch. A new best and the end of
            the run are always saved.
        directory: the run directory, or a ``Checkpoints`` that says what to keep and what is best.
            Without one nothing is written. A path alone keeps the last 3 checkpoints and the
            best one by the metric of ``early_stop``, or by the loss of the set ``eval``; for sets
            of other names say it, ``Checkpoints(directory, monitor="valid/loss")``.
        resume: ``True`` resumes from the newest checkpoint in ``directory`` that verifies, if there
            is one; ``False`` refuses a directory that has any. ``"best"`` or a step goes back to
            that checkpoint and moves later ones to a directory of their own. A path resumes from
            a checkpoint of another run, or from the newest that verifies in a run directory; its
            log so far is copied, and ``directory`` must be empty.
        early_stop: a rule such as :class:`EarlyStop` or :class:`Overfit`, or several; the first to
            stop ends the run. A metric that no evaluation can give, here or as ``monitor`` of
            ``directory``, is an error.
        restore_best: return the state with the best value of the monitored metric instead of the
            last one. Checkpoints and resuming stay the same.
        listeners: objects with methods such as ``on_batch_end(event)``; one that returns
            ``ft.Stop()`` ends the run.
        schedule_end: how a run continues beyond the end of its learning rate schedule, for example
            when it is resumed with a longer ``until``: ``"stretch"`` follows the curve of a run of
            the new length, ``"restart"`` a new curve over the updates that remain, ``"keep"`` the
            old curve and then its last rate. Repeating the call changes nothing more. By default
            a last rate above zero is kept with a warning, and a rate of zero is an error.
        progress: by default a bar shows epoch, step, loss, evaluation, speed and remaining time on
            a terminal (standard error) or in a notebook, and each evaluation stays above it;
            elsewhere, or if a listener shows the progress, nothing is shown. ``False`` never shows
            it, ``True`` prints a line for each evaluation to a file, too.
        sanity_batches: evaluate so many batches of each set before the first step, so that an error
            in the evaluation, or a monitored metric that it does not give, shows at once. Nothing
            of it is logged, and the run stays the same.
        limit_train_batches: for a quick try, end each epoch after so many batches of ``data``.
            Epochs, schedules and checkpoints are those of a run that is so short, and it resumes
            under the same limits only.
        limit_eval_batches: evaluate at most so many batches of each set.

    Returns:
        The run: trained module, last state, history, reason.

    Raises:
        ListenerError: a listener failed. Like any exception from loss or data it leaves a
            checkpoint of the last good state behind.
        ConfigurationError: arguments contradict each other, or nothing says whether less or more of
            the monitored metric is better.
        MissingMetricError: no evaluation gives the monitored metric.
        CheckpointMismatchError: the directory holds a run of another architecture.
        ParameterMismatchError: ``state`` is of another program.
        UnsupportedError: ``state`` is not a ``TrainState``.
        ScheduleEndedError: the rest of the run would have a learning rate of zero.
        RunChangedError: the run in the directory has another seed or limit of batches; or nothing
            is left to train, and its recipe or data differ.

    Example:
        >>> import functrain as ft, torch
        >>> x = torch.linspace(-1, 1, 32).reshape(-1, 1)
        >>> loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
        >>> program = ft.program(torch.nn.Linear(1, 1), loss, ft.optim.Adam(lr=0.1))
        >>> run = ft.fit(program, ft.data.Batches((x, 3 * x), 8), until="20 epochs")
        >>> run.reason, run.state.counters.step, run.history["loss"][-1] < 0.1
        ('max_epochs', 80, True)
    """
    require_program(program)
    rule = as_rule(early_stop)
    store = _store(directory, rule)
    if restore_best and store is not None and not store.keep_best:
        raise ConfigurationError("restore_best needs Checkpoints with keep_best of at least 1")
    program = counting_epochs(program if store is None else cached(program))
    ranks = Ranks(world_of(program))
    world = ranks.world
    plan = Plan.of(
        program,
        until,
        eval_data,
        eval_every,
        save_every,
        restore_best,
        sanity_batches,
        BatchLimits(limit_train_batches, limit_eval_batches),
    )
    own: Any = program if hasattr(type(program), "decisions") else None
    rules: type[Decisions] = Decisions if own is None else own.decisions
    decisions = rules.of(program, rule, store, restore_best)
    decisions.check(plan.evaluations)
    source = source_of(program, plan.batch_limits.train(data))
    bar = default_bar(progress, listeners) if ranks.leads else []
    acknowledged = "finishing the step" + ("" if store is None else ", then saving")
    session = Session(
        plan=plan,
        decisions=decisions,
        source=source,
        listeners=Listeners.of(listeners, world.rank, world.size, last=bar),
        checkpointer=None if store is None else Checkpointer.of(store, plan, source, world),
        ranks=ranks,
        interrupts=Interrupts(acknowledged if ranks.leads else None),
    )
    together = world.failing_together
    # A failure is published before the session ends, which may take longer than others wait.
    closing = contextlib.closing(plan.evaluations)
    named = naming_dead_workers()
    with ranks.speaking_once(), together(), session.opened(), closing, together(), named:
        steps = plan.total_steps(source.length)
        start(session, Given(state, seed, resume, schedule_end, steps))
        check_evaluation(session, plan.sanity_batches)
        return finished(session, run(session))


def _store(directory: str | Path | Checkpoints | None, rule: Rule | None) -> Checkpoints | None:
    if directory is None or isinstance(directory, Checkpoints):
        return directory
    if not isinstance(directory, str | Path):
        raise ConfigurationError(
            "directory: expected a path or functrain.Checkpoints, got a "
            f"{type(directory).__name__}. Train in a directory; the listener "
            "functrain.listeners.Mirror copies its checkpoints to a remote store"
        )
    if directory == "":
        raise ConfigurationError('directory: expected a path, got ""; "." is the present one')
    # A run decides the same whether it is written or not.
    return Checkpoints(directory, keep_last=3, **monitor_and_mode(rule))
