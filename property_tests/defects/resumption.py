"""Defects of resuming, saving and logging."""

from __future__ import annotations

from .defect import Defect, defect

_TRAIN = "with_resumed_schedule(plan.program, saved.train, given.steps, given.schedule_end)"
_LOOP = (
    "    session.train, session.loop, session.data_state = saved.train, saved.loop, saved.data\n"
)


def _reset(part: str) -> Defect:
    """Reset a part of the training state to its initial value."""
    new = _TRAIN.replace(
        "saved.train", f"attrs.evolve(saved.train, {part}=plan.program.init(0).{part})"
    )
    name = f"{part} is reset on resumption"
    return defect(name, "training/start.py", _TRAIN, new, "resumption: cuts_leave_no_trace")


def _forgotten(name: str, old: str, new: str, law: str = "cuts_leave_no_trace") -> Defect:
    new = _LOOP.replace(old, new)
    return defect(name, "training/start.py", _LOOP, new, f"resumption: {law}")


RESUMPTION = (
    _reset("ema"),
    _reset("loss_scale"),
    _reset("optimizer"),
    _reset("buffers"),
    _forgotten(
        "the pending evaluation of the last step is forgotten",
        "saved.loop",
        "attrs.evolve(saved.loop, owed=None)",
        "exceptions_at_any_event_leave_no_trace",
    ),
    _forgotten(
        "the means of the epoch are forgotten",
        "saved.loop",
        "attrs.evolve(saved.loop, sums={})",
    ),
    _forgotten(
        "the best value is forgotten",
        "saved.loop",
        'attrs.evolve(saved.loop, best={"value": None, "step": None})',
    ),
    _forgotten(
        "the state of the data is forgotten",
        "saved.data",
        "None",
        "loaders_with_a_state_resume",
    ),
    defect(
        "the rule of early stopping is reset",
        "training/start.py",
        'saved.loop, info.get("monitored"), rows)',
        "attrs.evolve(saved.loop, early_stop=session.decisions.initial()))",
        "resumption: cuts_leave_no_trace",
    ),
    defect(
        "the state of a listener is saved and not loaded",
        "training/dispatch.py",
        "                listener.load_state_dict(states[name])\n",
        "                pass\n",
        "resumption: every_step_is_in_the_log_once",
    ),
    Defect(
        "a checkpoint is saved before the schedule has observed",
        "training/loop.py",
        (
            (
                "            _decide(session, session.due, found, directions)\n"
                "        _save_if_due(session, session.due, found)\n",
                "            unobserved = session.train.scheduler\n"
                "            _decide(session, session.due, found, directions)\n"
                "            observed = session.train\n"
                "            session.train = attrs.evolve(observed, scheduler=unobserved)\n"
                "        _save_if_due(session, session.due, found)\n"
                "        if found:\n"
                "            session.train = observed\n",
            ),
        ),
        "resumption: a_plateau_resumes",
    ),
    defect(
        "rows after the checkpoint stay in the log",
        "training/metrics_log.py",
        "        if self.size > size:\n",
        "        if self.size > size + (1 << 60):\n",
        "resumption: kills_at_any_event_leave_no_trace",
    ),
    defect(
        "an interval is due one step early",
        "training/limits.py",
        "    return passed(interval, after) > passed(interval, before)\n",
        "    return passed(interval, attrs.evolve(after, step=after.step + 1)) > passed(\n"
        "        interval, attrs.evolve(before, step=before.step + 1)\n"
        "    )\n",
        "resumption: every_step_is_in_the_log_once",
    ),
)
