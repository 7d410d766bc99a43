"""Programs whose step is a function of the user: of any tree, or of several programs at once.

Begin with ``program.py``, which has the step; ``custom.py`` and ``joint.py`` say of which states.
"""
