"""The loop: ``fit`` and ``iterate``, events, evaluation, early stopping, resuming, history.

Begin with ``loop.py``. The loop calls ``program.train_step`` and decides when to evaluate, save and
stop; everything that a resumed run needs is in the state and in the checkpoint.
"""
