"""Explanations of a failed step: mismatches, layers and shapes, where a NaN began.

Only ``except`` blocks, refusals and a step whose schedule may have ended import it, when they run.
Begin with ``step_errors.py``, which asks the others.
"""
