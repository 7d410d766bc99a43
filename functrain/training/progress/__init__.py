"""The progress that ``fit`` shows by itself: a bar where a person looks, and nothing elsewhere.

Begin with ``bar.py``, which also decides whether there is a bar; ``line.py`` lays it out for a
width.
"""
