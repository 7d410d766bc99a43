"""How objects show themselves in a notebook: HTML that needs no script, no network and no theme.

``_repr_html_`` of a state, a program, a run, a schedule and a list of differences call a module of
this package when they are shown, never before. Text takes the colour of the page
(``currentColor``), so light and dark themes both do; what comes from outside is escaped by
:mod:`functrain.view.plotting.markup`.
"""
