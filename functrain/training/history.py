"""The result of ``fit``, and the history of a run: its rows in memory, one a step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import attrs
from torch import nn

from functrain.core.protocol import require_plain
from functrain.core.schedule import Mode
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, LogError, UnknownNameError, UnsupportedError
from functrain.errors.nearest import unknown_attribute
from functrain.errors.optional import require
from functrain.metrics.by_member import flat, of_member, text
from functrain.metrics.log_file import Row, stream
from functrain.metrics.mode import resolved_mode
from functrain.plotting import Options, curves
from functrain.plotting.metric_names import is_mean
from functrain.plotting.table import text as table_text


@attrs.frozen(eq=False, repr=False)
class History:
    """Rows of a run in order of steps; each maps metric names to numbers.

    Metrics of a population are lists with a number for each member, ``None`` for one that had
    stopped: ``history["loss"]`` has the shape ``[steps, members]``, with NaN for those, and
    ``history.member(i)`` is the history of one.

    Args:
        rows: one a step.

    Example:
        >>> rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "eval/loss": 1.0}]
        >>> history = History(rows)
        >>> history["loss"], history.column("eval/loss"), len(history[-1:])
        ([0.5, 0.25], ([2], [1.0]), 1)
        >>> history
        History: 2 steps, 2 metrics
             | training | evaluation
        step |     loss |  eval/loss
           1 |      0.5 |
           2 |     0.25 |          1
    """

    rows: list[Row]

    @classmethod
    def read(cls, path: str | Path) -> History:
        """Return the history of a run that was written, finished or not.

        Args:
            path: the run directory, or its ``metrics.jsonl``.

        Raises:
            LogError: there is no log, or it is damaged.
        """
        return cls(list(stream(path)))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, which: str) -> list[Any]: ...
    @overload
    def __getitem__(self, which: slice) -> History: ...
    @overload
    def __getitem__(self, which: int) -> Row: ...
    def __getitem__(self, which: str | slice | int) -> list[Any] | History | Row:
        """Return a metric's values where it was measured, some of the steps, or one row."""
        if isinstance(which, str):
            return self.column(which)[1]
        return History(self.rows[which]) if isinstance(which, slice) else self.rows[which]

    def __repr__(self) -> str:
        return table_text(self.rows)

    def __getattr__(self, name: str) -> Any:
        elsewhere = {} if name.startswith("_") else {name: f"history[{name!r}]"}
        raise unknown_attribute("History", name, (), elsewhere)

    def names(self) -> list[str]:
        """All metrics that occur, in order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def member(self, index: int) -> History:
        """Return the history of one member of a population, up to where it stopped.

        Args:
            index: of the member.

        Raises:
            LogError: this is no history of a population, or of a smaller one.

        Example:
            >>> rows = [{"step": 1, "loss": [0.5, 0.6]}, {"step": 2, "loss": [0.4, None]}]
            >>> history = History(rows)
            >>> history["loss"], history.member(0)["loss"], len(history.member(1))
            ([[0.5, 0.6], [0.4, nan]], [0.5, 0.4], 1)
        """
        lists = [[v for v in row.values() if isinstance(v, list)] for row in self.rows]
        members = min((len(value) for each in lists for value in each), default=0)
        if not -members <= index < members:
            has = f"{members} members" if members else "one program, not of a population"
            raise LogError(f"member({index}): this is the history of {has}")
        pairs = zip(self.rows, lists, strict=True)
        there = [row for row, each in pairs if any(value[index] is not None for value in each)]
        return History([of_member(row, index) for row in there])

    def column(self, name: str) -> tuple[list[int], list[Any]]:
        """Return steps and values of one metric, where it was measured.

        Raises:
            UnknownNameError: no row has it; the message lists the names there are.
        """
        found = [(row["step"], _numbers(row[name])) for row in self.rows if name in row]
        if not found:
            raise UnknownNameError(name, self.names(), "this history")
        return [step for step, _ in found], [value for _, value in found]

    def last(self, name: str) -> Any:
        """Return the value of a metric when it was last measured.

        Raises:
            UnknownNameError: it never was.
        """
        return self.column(name)[1][-1]

    def best(self, name: str, mode: Mode | None = None) -> tuple[int, float]:
        """Step and value at which a metric was best, first if several times; never NaN or Inf.

        Of a population it is the best of any member; ``history.member(i).best(name)`` is that of
        one.

        Args:
            name: of the metric.
            mode: whether ``min`` or ``max`` is best; by default what a well-known name implies.

        Raises:
            UnknownNameError: it was never measured.
            LogError: it was never finite.
            ConfigurationError: the mode is neither, or not given where the name implies none.

        Example:
            >>> rows = [{"step": s, "loss": x} for s, x in enumerate((0.5, math.nan, 0.2), 1)]
            >>> History(rows).best("loss")
            (3, 0.2)
        """
        if mode not in ("min", "max", None):
            raise ConfigurationError(f"mode={mode!r}: expected 'min' or 'max'")
        pairs = [
            (step, one)
            for step, value in zip(*self.column(name), strict=True)
            for one in (value if isinstance(value, list) else [value])
            if math.isfinite(one)
        ]
        if not pairs:
            raise LogError(f"{name!r} was never finite in these {len(self)} steps")
        better = min if resolved_mode(name, mode, where="best") == "min" else max
        return better(pairs, key=lambda pair: pair[1])

    def plot(
        self,
        *metrics: str,
        path: str | Path | None = None,
        title: str = "",
        x: str = "step",
        smooth: float = 0.05,
        log: bool | None = None,
        theme: str = "light",
    ) -> Any:
        """Draw curves; see :class:`functrain.plotting.Options` for the options.

        Args:
            metrics: globs of names; by default what is usually looked at.
            path: where to write the picture; by default it is not written.
            title: over the figure.
            x: ``step``, ``epoch``, ``samples`` or ``time``.
            smooth: training metrics are smoothed over this share of the steps.
            log: logarithmic values, always or never; by default where it shows more.
            theme: ``light`` or ``dark`` paper.

        Returns:
            A ``matplotlib.figure.Figure`` that notebooks show.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return curves(self, path, title, Options(metrics, x, smooth, log, theme))

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame`` by step, NaN where a metric was not measured.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        rows = list(map(flat, self.rows))  # metrics of member 3 as "loss/3"
        names = History(rows).names()
        frame = require("pandas", "pandas").DataFrame(rows, columns=names)
        return frame.set_index("step") if "step" in names else frame


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [math.nan if one is None else one for one in value]
    return value


# Attributes in other libraries, with their replacements.
_ELSEWHERE = {
    **dict.fromkeys(("module", "trained_model"), "run.model"),
    "predict": "run.model(x), or functrain.predict(program, run.state, data)",
    **dict.fromkeys(("metrics", "log_history", "callback_metrics"), "run.history"),
    **dict.fromkeys(("losses", "loss"), 'run.history["loss"]'),
    "params": "run.state.params",
    "plot": "run.history.plot()",
    "save": "functrain.save(path, run.state)",
    "evaluate": "functrain.evaluate(program, run.state, data)",
    "best_step": 'run.best["step"]',
    "path": "run.directory",
}


class _Trained:
    __slots__ = ("_program",)  # no field: a saved or pickled run has no program


@attrs.frozen(eq=False, repr=False)
class Run(_Trained):
    """The result of ``fit``.

    Attributes:
        state: the last training state.
        history: one row a step.
        reason: ``max_steps``, ``max_epochs``, ``max_samples``, ``max_time``, ``early_stop``,
            ``listener``, ``interrupted`` or ``nonfinite``.
        detail: the reason in words.
        directory: where the run was written, or ``None``.
        best: ``{"value", "step"}`` of the monitored metric. For a population they are lists by
            member, and ``"member"`` is the best one.
        seconds: time trained, over all resumptions.
        new_steps: updates made by this call; 0 where nothing was left to train.
    """

    state: TrainState
    history: History
    reason: str
    detail: str
    directory: Path | None
    best: dict[str, Any]
    seconds: float
    new_steps: int | None = None

    @cached_property
    def model(self) -> nn.Module:
        """A module of the user's class with the weights of ``state``, in evaluation mode.

        ``fit`` leaves the user's own module untrained. This one is made when it is first asked for,
        and shares no memory with ``state``. ``program.trained(run.state, weights="ema")`` is one
        with the averaged weights. If several processes train together, all of them ask for it.

        Raises:
            UnsupportedError: the program has several modules, or none; or the run was loaded.
        """
        program = getattr(self, "_program", None)
        if program is None:
            raise UnsupportedError(
                "run.model: a Run that was loaded, or that fit did not make, has no program; "
                "program.trained(run.state) gives the trained module"
            )
        require_plain(program, "run.model")
        module: nn.Module = program.trained(self.state)
        return module

    def of_program(self, program: Any) -> Run:
        """Return this run, which then has a ``model``."""
        object.__setattr__(self, "_program", program)
        return self

    def __getattr__(self, name: str) -> Any:
        raise unknown_attribute("Run", name, type(self).__annotations__, _ELSEWHERE)

    def __repr__(self) -> str:
        step, rows = self.state.counters.step, self.history.rows
        last = rows[-1] if rows else {}
        # The best state is that of an earlier row.
        row = next((row for row in reversed(rows) if row.get("step") == step), last)
        of = f" of {last['step']}" if row is not last else ""
        # "confusion/f1" may be of a step; a set has a loss, too.
        losses = [name for name in row if name.endswith("/loss") and not is_mean(name)]
        sets = tuple(name.removesuffix("loss") for name in losses)
        shown = ", ".join(
            text(name, value).replace(" ", "=", 1)
            for name, value in row.items()
            if name == "loss" or name.startswith(("eval", *sets))
        )
        if self.new_steps == 0:
            shown = f"nothing was trained by this call, {shown}"
        where = f", directory={str(self.directory)!r}" if self.directory else ""
        return f"Run(reason={self.reason!r}, step={step}{of}, {shown}{where})"
