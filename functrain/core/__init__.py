"""The pure step: a program, its immutable state, and everything one training step does.

Begin with ``program.py`` (the three functions), then ``state.py`` (the tree that they pass on) and
``step.py`` (gradients, clipping, update, averages). Nothing here knows an epoch, a file or a loop.
"""
