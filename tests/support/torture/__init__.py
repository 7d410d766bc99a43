"""Real runs, disturbed in every way a machine knows, end as the run that was never disturbed."""
