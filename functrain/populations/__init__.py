"""Many members trained by one step: one program with other numbers, seeds and weights in each.

Begin with ``construct.py``, which says what a population is, and ``program.py``, whose
``train_step`` is the host part. The device part, ``step.py``, is ``torch.func.vmap`` over the step
of one member; ``draws.py`` gives each member the random numbers that it would draw alone.
``in_fit.py`` and ``decisions.py`` answer the questions of a run.
"""
