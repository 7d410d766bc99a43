"""Room of core."""
