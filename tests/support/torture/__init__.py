"""Real runs, disturbed in every way, end like an undisturbed run."""
