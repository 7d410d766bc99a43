"""One call of ``fit``, from its beginning to its end: what ``loop.py`` promises for each step."""

from __future__ import annotations

import attrs

from functrain import metrics
from functrain.checkpoint import Saver
from functrain.checkpoint.run_state import LoopState
from functrain.core.batch import Batch, require_sizes
from functrain.core.diagnosis import check_state
from functrain.core.ownership import solely_held
from functrain.core.program import Program
from functrain.core.schedule import Mode
from functrain.core.state import TrainState, is_consumed
from functrain.errors import (
    CheckpointWriteError,
    ListenerError,
    NonFiniteError,
    NonFiniteWarning,
)
from functrain.errors.warning import warn
from functrain.training import events
from functrain.training.compatibility import (
    check_place,
    count_epochs,
    ended_before,
    notice_unused,
    refuse_another_seed,
    tell_changes,
    warn_of_replay,
)
from functrain.training.course import Course
from functrain.training.decisions import Deciding, warn_of_no_best
from functrain.training.durations import Duration, Samples
from functrain.training.evaluation import Evaluations, Interrupted
from functrain.training.history import History, Run
from functrain.training.iteration import Progress, advance, epoch_batches
from functrain.training.limits import Ending, Limits, Position, due, position
from functrain.training.monitored import check_given
from functrain.training.resume import Resume, chosen, restore
from functrain.training.schedule_end import ScheduleEnd, guarded, scheduled, taken_up

_LOST = (
    "the step failed while it wrote its results over the state it was given, so there is no state "
    "to save; the newest checkpoint stands"
)
_GRACE = 25.0  # seconds that an interrupted run waits for its final checkpoint


@attrs.define(eq=False, kw_only=True)
class Running:
    """What is done at each step, and when.

    Attributes:
        program: what is trained.
        donating: the same, whose step writes over the state it is given.
        course: the present state, and who is told.
        limits: when the run ends.
        evaluations: what is evaluated when.
        save_every: when to save.
        deciding: best, early stop and plateau.
        restore_best: whether the best state is given back.
        best_state: the best so far, where no checkpoint holds it.
        at: where the run stands.
        first: the step at which this call began.
    """

    program: Program
    donating: Program
    course: Course
    limits: Limits
    evaluations: Evaluations
    save_every: Duration
    deciding: Deciding
    restore_best: bool
    best_state: TrainState | None = None
    at: Position = attrs.field(init=False)
    first: int = attrs.field(init=False)
    counts_samples: bool = attrs.field(init=False)

    @counts_samples.default
    def _in_samples(self) -> bool:
        own = [each.every for each in self.evaluations.sets.values()]
        durations = (*self.limits.durations, self.save_every, self.evaluations.every, *own)
        return any(isinstance(each, Samples) for each in durations)

    def begin(
        self,
        state: TrainState | None,
        seed: int | None,
        resume: Resume,
        schedule_end: ScheduleEnd,
    ) -> None:
        """Take up a checkpoint, or begin anew."""
        if state is not None:
            check_state(self.program.fixed, state)
        course, origin, path, ended = self.course, chosen(self.course.store, resume), None, None
        source = course.source
        steps = self.limits.steps(source.length, self.program.recipe.accumulate)
        if origin is None:
            if state is None:
                begun = self.program.init(0 if seed is None else seed)
            else:
                begun = count_epochs(state, source)
                refuse_another_seed(seed, state, None)
            loop = LoopState.initial(self.deciding.begun())
            course.begin(scheduled(self.program, begun, steps, schedule_end), loop)
            self._describe()
        else:
            there, which = origin
            saved, info, path = restore(there, self.program, which)
            check_place(saved.train, source.length)
            refuse_another_seed(seed, saved.train, path)
            ended = ended_before(saved, info, path, self.limits, source.length, steps)
            tell_changes(self.program, course.data, info, path, ended)
            notice_unused(state, saved.train)
            train = taken_up(self.program, saved.train, steps, schedule_end)
            loop = self.deciding.taken_up(saved.loop, info.get("monitored"))
            course.take_up(attrs.evolve(saved, train=train, loop=loop), there, info, path)
            self._describe()
        self.program = guarded(self.program, steps, schedule_end)
        self.donating = guarded(self.donating, steps, schedule_end)
        self.at, self.first = self._position(source.length), course.train.counters.step
        course.send(events.TrainBegin(course.train, steps, source.length, path, ended))

    # -- the loop ----------------------------------------------------------------------------

    def go(self) -> Ending:
        """Make steps until something ends the run.

        Any exception leaves a checkpoint of the last good state behind before it goes on.
        """
        course = self.course
        try:
            ending = self._owed() or self._already_over()
            if ending is None:
                warn_of_replay(course.train, course.source)
                ending = self._epochs()
            return ending
        except NonFiniteError as error:
            warn(f"the run ends: {error}", NonFiniteWarning)
            return Ending("nonfinite", str(error))
        except BaseException as error:
            if is_consumed(course.train):
                error.add_note(_LOST)
                raise
            try:
                course.save()
                course.tell_saved(Saver.close)
            except (CheckpointWriteError, ListenerError) as second:
                error.add_note(f"the last state could not be saved: {second}")
            raise

    def _already_over(self) -> Ending | None:
        limit = self.limits.reached(self.at)
        if limit is None and self.course.loop.early_stop.get("stop"):
            return Ending("early_stop", self.course.loop.early_stop["stop"])
        return limit

    def _epochs(self) -> Ending:
        course = self.course
        accumulate = self.program.recipe.accumulate
        while True:
            epoch = course.train.counters.epoch
            course.send(events.EpochBegin(course.train, epoch))
            saved, course.data_state = course.data_state, None
            progress = Progress.begin(course.train.counters)
            for batch, ends in epoch_batches(course.source, course.train, accumulate, saved):
                ending = self._step(batch, ends)
                progress.after(course.train.counters, ends)
                if ending is not None:
                    return ending
            if course.train.counters.epoch == epoch:
                # The data ended before its own length said so, or had no more of this epoch.
                progress.end()
                following = course.train.counters.next_epoch()
                course.train = attrs.evolve(course.train, counters=following)
                self.at = self._position(course.source.length)
                limit = self.limits.reached(self.at)
                if limit is not None:
                    return limit

    def _step(self, batch: Batch, ends_epoch: bool) -> Ending | None:
        course = self.course
        if course.sending.wants(events.BatchBegin):
            course.send(events.BatchBegin(course.train, batch))
        if self.counts_samples:
            require_sizes(batch)
        before, counters = self.at, course.train.counters
        course.between_steps = False
        # A state that someone else holds must not be consumed: a listener, a save, the caller.
        donates = solely_held(course, "train")
        program = self.donating if donates else self.program
        course.train, step_metrics = advance(program, course.train, batch, ends_epoch)
        course.between_steps = True
        # Asked for at the first batch, when the data knows its epoch, and at the last.
        known = before.batch > 0 and not ends_epoch
        self.at = self._position(before.batches if known else course.source.length)
        made = course.train.counters.step > counters.step
        if made:
            row = {"step": course.train.counters.step, "epoch": counters.epoch, **step_metrics}
            course.recorder.add(row, course.train.counters.samples - counters.samples)
        limit = self.limits.reached(self.at)
        self._owe(before, ends_epoch, limit is not None)
        if made and course.sending.wants(events.BatchEnd):
            course.send(events.BatchEnd(course.train, step_metrics), row)
        return self._owed() or self._check(limit)

    def _check(self, limit: Ending | None) -> Ending | None:
        """The stop check, last at each step."""
        course = self.course
        if course.recorder.due:
            course.flush()
        course.tell_saved(Saver.poll)
        if limit is not None:
            return limit
        if course.loop.early_stop.get("stop"):
            return Ending("early_stop", course.loop.early_stop["stop"])
        if course.stop is not None:
            return Ending("listener", course.stop.detail)
        if course.interrupts.received:
            return Ending("interrupted", f"received {course.interrupts.received}")
        return None

    # -- what is owed after a step -----------------------------------------------------------

    def _owe(self, before: Position, ends_epoch: bool, last: bool) -> None:
        evaluate = self.evaluations.due(before, self.at, last)
        save = due(self.save_every, before, self.at) or last
        if ends_epoch or evaluate or save:
            owed = {"epoch_end": ends_epoch, "evaluate": evaluate, "save": save, "row": None}
            self.course.loop = attrs.evolve(self.course.loop, owed=owed)

    def _owed(self) -> Ending | None:
        """Do what the last step still owes.

        What is done is struck off at once, so that an interruption in between, or an exception,
        leaves a state from which the rest is done after resumption.
        """
        course = self.course
        if course.loop.owed is None:
            return None
        course.settle()
        if course.loop.owed["epoch_end"]:
            self._end_epoch()
        found: dict[str, float] = {}
        if course.loop.owed["evaluate"]:
            try:
                found, directions = self.evaluations.evaluated(
                    self.program,
                    course.train,
                    course.loop.owed["evaluate"],
                    course.send,
                    lambda: course.interrupts.received is not None,
                )
            except Interrupted:
                return Ending("interrupted", f"received {course.interrupts.received}")
            self._decide(found, directions)
        row, save = course.loop.owed["row"], course.loop.owed["save"]
        course.loop = attrs.evolve(course.loop, owed=None)
        course.recorder.write([row] if row else [])
        if save or course.loop.early_stop.get("stop"):
            course.save(found)
        return None

    def _end_epoch(self) -> None:
        course = self.course
        means = metrics.mean(course.loop.sums)
        row = course.noted({f"epoch/{name}": value for name, value in means.items()})
        course.loop = attrs.evolve(course.loop, sums={})
        course.strike(epoch_end=False, row=row)
        course.send(events.EpochEnd(course.train, course.train.counters.epoch - 1, means, True))

    def _decide(self, found: dict[str, float], directions: dict[str, Mode]) -> None:
        """Best, early stop and plateau."""
        course = self.course
        owed, before = course.loop.owed or {}, course.loop.best
        complete = len(owed["evaluate"]) == len(self.evaluations.sets)
        epoch = {key: value for key, value in (owed["row"] or {}).items() if key[:6] == "epoch/"}
        seen = epoch | found
        self._check_given(seen)
        self.deciding = self.deciding.directed(seen, directions)
        self._describe()
        course.loop, course.train = self.deciding.after(course.loop, course.train, seen, complete)
        improved = course.loop.best is not before
        if improved and self.restore_best and course.store is None:
            self.best_state = course.train
        course.strike(evaluate=[], row=course.noted(found), save=owed["save"] or improved)
        if detail := course.loop.early_stop.get("stop"):
            course.send(events.EarlyStopped(course.train, detail))

    def _check_given(self, seen: dict[str, float]) -> None:
        owed = self.course.loop.owed or {}
        prefixes = self.evaluations.prefixes(self.course.train.ema is not None)
        rows = self.course.recorder.rows
        check_given(self.deciding.monitored(), seen, owed["evaluate"], prefixes, rows)

    def _describe(self) -> None:
        """Let checkpoints say what is decided by which metric."""
        if self.course.keeper is not None:
            self.course.keeper.described["monitored"] = self.deciding.record()

    # -- the end -----------------------------------------------------------------------------

    def end(self, ending: Ending) -> Run:
        """The final checkpoint, the last events, and the result."""
        course = self.course
        course.save()
        # Whoever interrupts a run may soon do so with force.
        hurried = ending.reason == "interrupted"
        course.tell_saved(lambda saver: saver.close(_GRACE if hurried else None))
        counters = course.train.counters
        if counters.batch:
            means = metrics.mean(course.loop.sums)
            course.send(events.EpochEnd(course.train, counters.epoch, means, False))
        course.send(events.TrainEnd(course.train, ending.reason, ending.detail))
        return Run(
            state=self._best() if self.restore_best else course.train,
            history=History(course.recorder.rows),
            reason=ending.reason,
            detail=ending.detail,
            directory=course.directory,
            best=course.loop.best,
            seconds=course.seconds,
            new_steps=counters.step - self.first,
        )

    def _best(self) -> TrainState:
        course = self.course
        step = course.loop.best["step"]
        if step is None:
            warn_of_no_best(self.deciding.monitor)
        if step in (None, course.train.counters.step):
            return course.train
        if course.store is None:
            return self.best_state or course.train
        return restore(course.store, self.program, step)[0].train

    def _position(self, batches: int | None) -> Position:
        seconds = self.course.seconds if self.limits.timed else 0.0
        return position(self.course.train, batches, seconds)
