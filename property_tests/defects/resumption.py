"""What a resumed run may forget, and what may be saved or logged wrongly."""

from __future__ import annotations

from .defect import LAWS, Defect, defect

_TAKEN = "        self.train = taken_up(self.program, saved.train, steps)\n"
_LOOP = "        self.loop, self.data_state = saved.loop, saved.data\n"


def _resumed(name: str, old: str, new: str, law: str = "cuts_leave_no_trace") -> Defect:
    return defect(name, "running.py", old, new, "resumption", law)


def _anew(part: str) -> str:
    """A part of the training state is as it was when the run began."""
    return _TAKEN.replace(
        "saved.train", f"attrs.evolve(saved.train, {part}=self.program.init(seed).{part})"
    )


RESUMPTION = (
    _resumed("the average begins anew on resumption", _TAKEN, _anew("ema")),
    _resumed("the loss scale begins anew on resumption", _TAKEN, _anew("loss_scale")),
    _resumed("moments begin anew on resumption", _TAKEN, _anew("optimizer")),
    _resumed("buffers begin anew on resumption", _TAKEN, _anew("buffers")),
    _resumed(
        "what the last step owed is forgotten",
        _LOOP,
        _LOOP.replace("saved.loop", "attrs.evolve(saved.loop, owed=None)"),
        "exceptions_at_any_event_leave_no_trace",
    ),
    _resumed(
        "the means of the epoch are forgotten",
        _LOOP,
        _LOOP.replace("saved.loop", "attrs.evolve(saved.loop, sums={})"),
    ),
    _resumed(
        "the best value is forgotten",
        _LOOP,
        _LOOP.replace("saved.loop", 'attrs.evolve(saved.loop, best={"value": None, "step": None})'),
    ),
    _resumed(
        "the state of the data is forgotten",
        _LOOP,
        _LOOP.replace("saved.data", "None"),
        "loaders_with_a_state_go_on",
    ),
    _resumed(
        "the rule of early stopping begins anew",
        "        self.loop = self.deciding.taken_up(self.loop)\n",
        "        self.loop = attrs.evolve(self.loop, early_stop=self.deciding.begun())\n",
    ),
    defect(
        "the state of a listener is saved and not loaded",
        "listening.py",
        "            listener.load_state_dict(states[name])\n",
        "            pass\n",
        "resumption",
        "every_step_is_in_the_log_once",
    ),
    Defect(
        "a checkpoint is saved before the schedule has observed",
        "running.py",
        (
            (
                "        if self.loop.owed is None:\n            return None\n",
                "        if self.loop.owed is None:\n            return None\n"
                "        unobserved = self.train.scheduler\n",
            ),
            (
                "            self.save(found)\n        return None\n",
                "            after = self.train\n"
                "            self.train = attrs.evolve(after, scheduler=unobserved)\n"
                "            self.save(found)\n"
                "            self.train = after\n"
                "        return None\n",
            ),
        ),
        LAWS.format("resumption", "a_plateau_goes_on"),
    ),
    defect(
        "rows after the checkpoint stay in the log",
        "history.py",
        "        if self.size > size:\n",
        "        if self.size > size + (1 << 60):\n",
        "resumption",
        "kills_at_any_event_leave_no_trace",
    ),
    defect(
        "an interval is due one step early",
        "position.py",
        "    return passed(interval, after) > passed(interval, before)\n",
        "    return passed(interval, attrs.evolve(after, step=after.step + 1)) > passed(\n"
        "        interval, attrs.evolve(before, step=before.step + 1)\n"
        "    )\n",
        "resumption",
        "every_step_is_in_the_log_once",
    ),
)
