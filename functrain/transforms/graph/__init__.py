"""Steps as graphs: captured from a run of their Python, and compiled for one form of input."""
