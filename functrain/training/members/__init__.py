"""A population in ``fit``: its evaluation and its decisions, by member."""
