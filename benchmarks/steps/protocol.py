"""What the parent and its workers say to one another."""

from __future__ import annotations

from typing import NamedTuple


class Task(NamedTuple):
    """What a worker is to run, and on what.

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
    """What the parent asks for: so many steps, and something measured over them.

    Attributes:
        kind: ``"seconds"``, ``"peak"``, ``"resident"`` or ``"allocated"`` (bytes).
        steps: how many.
        lead: steps before these that are not measured.
    """

    kind: str
    steps: int = 1
    lead: int = 0


class Answer(NamedTuple):
    """What was measured, and the loss of the last step."""

    value: float
    loss: float


class Failed(NamedTuple):
    """The contender could not be run: the first line of its error."""

    reason: str
