"""The messages between the parent and its workers."""

from __future__ import annotations

from typing import NamedTuple


class Task(NamedTuple):
    """The task of a worker.

    Attributes:
        contender: its name.
        work: the name of the work.
        threads: of torch.
        core: to which the process is bound; ``None`` leaves that to the system.
    """

    contender: str
    work: str
    threads: int
    core: int | None


class Turn(NamedTuple):
    """A request of the parent: a number of steps, and a measurement over them.

    Attributes:
        kind: ``"seconds"``, ``"peak"``, ``"resident"`` or ``"allocated"`` (bytes).
        steps: how many.
        lead: steps before these that are not measured.
    """

    kind: str
    steps: int = 1
    lead: int = 0


class Answer(NamedTuple):
    """The measurement, and the loss of the last step."""

    value: float
    loss: float


class Failed(NamedTuple):
    """The contender failed; holds the first line of its error."""

    reason: str
