"""Pictures and pages for people: learning curves, reports of runs, and HTML for notebooks.

``display`` makes the HTML that notebooks show, ``plotting`` draws curves of runs, ``reporting``
writes a page about one run. The rooms that train, save and load import none of it.
"""
