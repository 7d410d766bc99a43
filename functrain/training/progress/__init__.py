"""The progress that ``fit`` shows by itself: a bar where a person looks, and nothing elsewhere.

Begin with ``bar.py``; ``line.py`` lays the bar out for a width, ``default.py`` decides whether
there is one.
"""
