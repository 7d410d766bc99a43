"""Mistakes that people make in their first hour, each with a pattern of what its message says.

A pattern says what is wrong, the argument, name, layer or batch that it is about, and what to do.
"""

from first_mistakes import calls, names, programs, runs, steps

FIRST = [*calls.FIRST, *names.FIRST, *programs.FIRST, *steps.FIRST, *runs.FIRST]

__all__ = ["FIRST"]
