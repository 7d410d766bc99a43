"""Checkpoints of a run as a state machine: any operations in any order agree with a model.

Saving forwards and backwards, replacing, pruning, calls that fail, power cuts and readers beside
the writer; small trees, each of which is told apart by its value.
"""

from __future__ import annotations

import errno
import math
import os
import random
import shutil
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import attrs
import pytest
from crashes import states as crashes_states
from crashes.faults import Failing
from crashes.log import Recorder
from crashes.model import EVERY, KEEP_BEST, KEEP_LAST, Model, Saved, kept, ranked, sample
from crashes.place import LONG, scratch
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from functrain import tree
from functrain.checkpoint import Checkpoints, load, save
from functrain.errors import (
    CheckpointWriteError,
    FunctrainWarning,
    NoCheckpointError,
    RunDirectoryError,
)

LOSSES = st.sampled_from([0.0, 0.5, 1.0, 2.0, math.nan, math.inf, None])


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.place = self.exits.enter_context(scratch())
        self.model: Model = {}
        self.weights: int | None = None
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.run = self.place / "life-0"
        self.run.mkdir()

    def teardown(self) -> None:
        self.exits.close()

    @property
    def store(self) -> Checkpoints:
        return Checkpoints(
            self.run / "run", keep_last=KEEP_LAST, keep_best=KEEP_BEST, keep_every_steps=EVERY
        )

    def next(self) -> int:
        self.count += 1
        return self.count

    def adopt(self, step: int, new: Saved, returned: bool) -> None:
        """After a failure, check that the checkpoints on the disk are allowed."""
        after = {**self.model, step: new}
        sure = kept(after, step) if returned else self.model
        if not returned:  # it may have been saved nevertheless, and have pruned others
            sure = {key: saved for key, saved in kept(after, step).items() if key != step}
            sure = {key: saved for key, saved in sure.items() if key in self.model}
        found = {}
        for each in self.store.steps():
            value = self.store.restore(each)[0]["value"]
            [found[each]] = {
                saved
                for saved in (self.model.get(each), after[each])
                if saved is not None and saved.value == value
            }
        assert set(sure) <= set(found) <= set(after)
        if returned:
            assert found[step] == new
        elif found.get(step) != new:
            assert found == self.model, "nothing was saved, but something was let go"
        self.model = found

    # -- rules -------------------------------------------------------------------------------

    def saving(self, step: int, loss: float | None) -> tuple[Saved, Callable[[], Any]]:
        new = Saved(self.next(), loss)
        metrics = {} if loss is None else {"loss": loss}
        return new, lambda: self.store.save(sample(new.value), step=step, metrics=metrics)

    @rule(step=st.integers(0, 12), loss=LOSSES)
    def save(self, step: int, loss: float | None) -> None:
        new, call = self.saving(step, loss)
        assert call() == self.store.path(step)
        self.model = kept({**self.model, step: new}, step)

    @rule(overwrite=st.booleans())
    def save_elsewhere(self, overwrite: bool) -> None:
        value = self.next()
        if self.weights is not None and not overwrite:
            with pytest.raises(FileExistsError):
                save(self.run / "weights", sample(value))
            return
        save(self.run / "weights", sample(value), overwrite=overwrite)
        self.weights = value

    @rule(last=st.integers(1, 3), best=st.integers(0, 2), dry=st.booleans())
    def prune(self, last: int, best: int, dry: bool) -> None:
        store = attrs.evolve(self.store, keep_last=last, keep_best=best, keep_every_steps=None)
        staying = {*sorted(self.model)[-last:], *ranked(self.model)[:best]}
        going = sorted(set(self.model) - staying)
        if not self.model:
            return
        assert store.prune(dry_run=dry) == going
        if not dry:
            self.model = {step: self.model[step] for step in staying}

    @rule(
        step=st.integers(0, 12),
        loss=LOSSES,
        nth=st.integers(1, 60),
        code=st.sampled_from([errno.EIO, errno.ENOSPC, errno.EMFILE]),
    )
    def fail(self, step: int, loss: float | None, nth: int, code: int) -> None:
        new, call = self.saving(step, loss)
        returned = True
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", FunctrainWarning)
            failing = Failing(patch, nth, code)
            try:
                call()
            except (CheckpointWriteError, RunDirectoryError):
                returned = False
        event(f"a call of {failing.failed}" if failing.failed else "no call failed")
        assert returned or failing.failed
        self.adopt(step, new, returned)

    @rule(step=st.integers(0, 12), loss=LOSSES, seed=st.integers(0, 1 << 32))
    def cut_power(self, step: int, loss: float | None, seed: int) -> None:
        # Not drawn, since the length of a manifest depends on the clock.
        chance = random.Random(seed)
        new, call = self.saving(step, loss)
        recorder = Recorder(self.run)
        with recorder.installed():
            call()
        recorder.mark("returned", new.value)
        number = chance.randrange(len(recorder.log.operations))
        for index, point in enumerate(crashes_states.points(recorder.log)):
            if index == number:
                *_, state = crashes_states.states(point.disk, chance, chance.randint(1, 10))
                break
        shutil.rmtree(self.run)
        self.run = self.place / f"life-{self.next()}"
        crashes_states.materialise(state, self.run)
        self.adopt(step, new, returned=bool(point.said))

    @precondition(lambda self: self.model)
    @rule(step=st.integers(0, 12), loss=LOSSES)
    def read_while_saving(self, step: int, loss: float | None) -> None:
        new, call = self.saving(step, loss)
        possible = {saved.value for saved in self.model.values()} | {new.value}
        done, errors, seen = threading.Event(), [], []

        def writing() -> None:
            try:
                call()
            except BaseException as error:  # checked below
                errors.append(error)
            finally:
                done.set()

        writer = threading.Thread(target=writing)
        writer.start()
        try:
            while not done.is_set():
                loaded = self.store.restore()[0]
                assert tree.equal(loaded, sample(loaded["value"]))
                seen.append(loaded["value"])
        finally:
            writer.join()
        assert errors == []
        assert set(seen) <= possible
        event(f"read {'often' if len(seen) > 1 else 'once'} while saving")
        self.model = kept({**self.model, step: new}, step)

    # -- invariants --------------------------------------------------------------

    @invariant()
    def steps(self) -> None:
        if not hasattr(self, "run"):
            return
        assert self.store.steps() == sorted(self.model)
        assert self.store.best() == next(iter(ranked(self.model)), None)

    @invariant()
    def contents(self) -> None:
        if not hasattr(self, "run"):
            return
        choices: dict[Any, int | None] = {step: step for step in self.model}
        choices["latest"] = max(self.model, default=None)
        choices["best"] = next(iter(ranked(self.model)), None)
        for which, step in choices.items():
            if step is None:
                with pytest.raises(NoCheckpointError):
                    self.store.restore(which)
                continue
            loaded, manifest = self.store.restore(which)
            assert tree.equal(loaded, sample(self.model[step].value))
            assert manifest.step == step
        if self.weights is not None:
            assert tree.equal(load(self.run / "weights"), sample(self.weights))

    @rule()
    def open(self) -> None:
        """Taking the lock removes the leftovers of failures."""
        with self.store.lock():
            pass
        hidden = {name for name in os.listdir(self.run / "run") if name.startswith(".")}
        assert hidden == {".lock"}


@pytest.mark.row(35)
@pytest.mark.row(36)
def test_the_machine() -> None:
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=300 if LONG else 12, stateful_step_count=30)
    )
