"""Training as a differentiable function.

Begin with ``program.py``; ``gradients.py`` takes gradients that have gradients themselves.
"""
