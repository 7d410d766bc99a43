"""Explanations of a failed step: mismatches, layers and shapes, where a NaN began.

Only ``except`` blocks and refusals import it, when they run; a step that succeeds never does. Begin
with ``step_errors.py``, which asks the others.
"""
