"""Mistakes that people make in their first hour, each with what its message must say."""

from first_mistakes import calls, names, programs, runs, steps
from first_mistakes.parts import First

FIRST: list[First] = [
    *calls.FIRST,
    *names.FIRST,
    *programs.FIRST,
    *steps.FIRST,
    *runs.FIRST,
]

__all__ = ["FIRST", "First"]
